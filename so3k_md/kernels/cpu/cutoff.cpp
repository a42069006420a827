/* so3k-md: the cutoff function of pairs, with its adjoint. MIT. */

#include "cutoff.h"

#include "arguments.h"
#include "differentiable.h"
#include "operators.h"

using at::Tensor;
using torch::jit::Stack;

namespace So3k {
namespace {

  /// The arguments, in the order of the schema.
  struct Call {
    Tensor r;    // with a derivative
    double cutoff;
    int64_t p;

    explicit Call(Arguments &next) : r(next.tensor()), cutoff(next.number()), p(next.integer())
    {
      require_precision(r.scalar_type());
    }
  };

  void forward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const Call of(next);
    const auto value = at::empty_like(of.r), derivative = at::empty_like(of.r);
    AT_DISPATCH_FLOATING_TYPES(of.r.scalar_type(), "so3k::cutoff_forward", [&] {
      const Cutoff<scalar_t> function = {static_cast<scalar_t>(of.cutoff), of.p};
      const auto *r = of.r.const_data_ptr<scalar_t>();
      auto *to = value.data_ptr<scalar_t>(), *by_r = derivative.data_ptr<scalar_t>();
      for (int64_t n = 0; n < of.r.numel(); ++n) function(r[n], to[n], by_r[n]);
    });
    next.give({value, derivative});
  }

  void backward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const auto given = next.optional();
    const auto derivative = next.tensor();
    next.give({or_zeros(given, derivative) * derivative});
  }

  void forward_shapes(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const Call of(next);
    next.give({at::empty_like(of.r), at::empty_like(of.r)});
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  using namespace So3k;
  define_differentiable(library, operators::CUTOFF, 1, 1);
  implement_passes<&forward, &backward>(library, "cutoff", c10::DispatchKey::CPU);
  implement_passes<&forward_shapes, &backward>(library, "cutoff", c10::DispatchKey::Meta);
  refuse_passes(library, "cutoff");
}
