/* so3k-md: distances and harmonics of pairs on a GPU, with their adjoint. MIT. */

#include <vector>

#include "../cpu/arguments.h"
#include "../cpu/differentiable.h"
#include "pairs.h"
#include "program.h"
#include "tensors.h"

using at::Tensor;
using torch::jit::Stack;

namespace So3k {
namespace {

  constexpr int THREADS = 128;    // of device/geometry.cu

  /// The arguments, in the order of the schema. Pairs are listed in both directions.
  struct Call {
    Tensor vectors, idx_i, idx_j, steps;
    std::vector<int64_t> degrees;
    double direction;

    explicit Call(Arguments &next) :
        vectors(next.tensor(at::kDouble)), idx_i(next.tensor()), idx_j(next.tensor()),
        steps(joined(next.tensors())), degrees(next.integers()), direction(next.number())
    {
      require_float(steps);
    }

    int64_t orders() const
    {
      int64_t sum = 0;
      for (const auto degree : degrees) sum += 2 * degree + 1;
      return sum;
    }
  };

  Pairs pairs_of(const Call &of)
  {
    Pairs pairs{};
    pairs.pairs = of.vectors.size(0);
    pairs.vectors = of.vectors.const_data_ptr<double>();
    pairs.steps = of.steps.const_data_ptr<float>();
    pairs.direction = static_cast<float>(of.direction);
    return pairs;
  }

  void run(const Call &of, const char *kernel, const Pairs &pairs)
  {
    const Program program = {"geometry.cu", degree_options(of.degrees)};
    launch(program, kernel, of.vectors.device(), (pairs.pairs + THREADS - 1) / THREADS, THREADS,
           &pairs);
  }

  void forward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const Call of(next);
    const auto n = of.vectors.size(0);
    const auto r = at::empty({n}, of.steps.options()),
               ylm = at::empty({n, of.orders()}, r.options());
    auto pairs = pairs_of(of);
    pairs.r = r.data_ptr<float>(), pairs.ylm = ylm.data_ptr<float>();
    run(of, "geometry_forward", pairs);
    // the list stays as it is, and an operator returns no argument
    const auto none = at::empty({0}, of.idx_i.options());
    next.give({r, ylm, none, at::empty_like(none), none.to(at::kBool), at::empty_like(none)});
  }

  void backward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const auto given_r = next.optional(), given_ylm = next.optional();
    for (int k = 0; k < 3; ++k) next.optional();    // of indices and flags
    next.tensor();                                  // the pairs that a CPU keeps
    const Call of(next);
    const auto n = of.vectors.size(0);
    const auto g_r = or_zeros(given_r, at::empty({n}, of.steps.options()));
    const auto g_ylm = or_zeros(given_ylm, at::empty({n, of.orders()}, of.steps.options()));
    const auto g = at::empty_like(of.vectors);
    auto pairs = pairs_of(of);
    pairs.g_r = g_r.const_data_ptr<float>(), pairs.g_ylm = g_ylm.const_data_ptr<float>();
    pairs.g_vectors = g.data_ptr<double>();
    run(of, "geometry_backward", pairs);
    next.give({g});
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  using namespace So3k;
  for (const auto device : {c10::DispatchKey::CUDA, c10::DispatchKey::PrivateUse1})
    implement_passes<&forward, &backward>(library, "geometry", device);
}
