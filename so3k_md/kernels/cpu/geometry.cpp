/* so3k-md: each pair once, with its distance and harmonics, and their adjoint. MIT. */

#include <algorithm>
#include <vector>

#include "arguments.h"
#include "differentiable.h"
#include "directions.h"
#include "harmonics.h"
#include "once.h"
#include "operators.h"
#include "threads.h"

using at::Tensor;
using torch::jit::Stack;

namespace So3k {
namespace {

  constexpr int64_t TILE = 256;            // pairs whose harmonics fit the first-level caches
  constexpr int64_t LEAST_PAIRS = 2048;    // for which another thread pays

  /// The arguments, in the order of the schema.
  struct Call {
    Tensor vectors, idx_i, idx_j;
    std::vector<Tensor> steps;
    std::vector<int64_t> degrees;
    double direction;

    explicit Call(Arguments &next) :
        vectors(next.tensor(at::kDouble)), idx_i(next.tensor()), idx_j(next.tensor()),
        steps(next.tensors()), degrees(next.integers()), direction(next.number())
    {
      require_precision(type());
    }

    at::ScalarType type() const { return steps.at(0).scalar_type(); }
    int64_t orders() const
    {
      int64_t sum = 0;
      for (const auto degree : degrees) sum += 2 * degree + 1;
      return sum;
    }
  };

  template <typename T>
  void fill(Directions<T> &directions, const double *vectors, const int64_t *kept, int64_t count)
  {
    for (int64_t n = 0; n < count; ++n) {
      const double *v = vectors + 3 * kept[n];
      directions.set(n, static_cast<T>(v[0]), static_cast<T>(v[1]), static_cast<T>(v[2]));
    }
  }

  template <typename T> Harmonics<T> harmonics_of(const Call &of)
  {
    std::vector<const T *> weights;
    for (const auto &step : of.steps) weights.push_back(step.const_data_ptr<T>());
    return Harmonics<T>(weights, of.degrees, TILE);
  }

  template <typename T>
  void evaluate(const Call &of, const Tensor &kept, const Tensor &r, const Tensor &ylm)
  {
    const auto orders = of.orders();
    const auto *vectors = of.vectors.const_data_ptr<double>();
    const auto *rows = kept.const_data_ptr<int64_t>();
    T *length = r.data_ptr<T>(), *y = ylm.data_ptr<T>();
    in_ranges(kept.size(0), LEAST_PAIRS, [&](int64_t begin, int64_t end) {
      auto harmonics = harmonics_of<T>(of);
      Directions<T> directions(TILE, static_cast<T>(of.direction));
      for (auto first = begin; first < end; first += TILE) {
        const auto count = std::min(TILE, end - first);
        fill(directions, vectors, rows + first, count);
        for (int64_t n = 0; n < count; ++n) length[first + n] = directions.length(n);
        harmonics.evaluate(directions.unit());
        for (int64_t m = 0; m < orders; ++m) {
          const T *row = harmonics.value(m);
          for (int64_t n = 0; n < count; ++n) y[(first + n) * orders + m] = row[n];
        }
      }
    });
  }

  template <typename T>
  void adjoint(const Call &of, const Tensor &kept, const Tensor &g_r, const Tensor &g_ylm,
               const Tensor &g_vectors)
  {
    const auto orders = of.orders();
    const auto *vectors = of.vectors.const_data_ptr<double>();
    const auto *rows = kept.const_data_ptr<int64_t>();
    const T *by_r = g_r.const_data_ptr<T>(), *by_y = g_ylm.const_data_ptr<T>();
    auto *g = g_vectors.data_ptr<double>();
    in_ranges(kept.size(0), LEAST_PAIRS, [&](int64_t begin, int64_t end) {
      auto harmonics = harmonics_of<T>(of);
      Directions<T> directions(TILE, static_cast<T>(of.direction));
      std::vector<T> g_unit(3 * TILE);
      for (auto first = begin; first < end; first += TILE) {
        const auto count = std::min(TILE, end - first);
        fill(directions, vectors, rows + first, count);
        harmonics.evaluate(directions.unit());
        harmonics.clear_gradient();
        for (int64_t m = 0; m < orders; ++m) {
          T *row = harmonics.gradient(m);
          for (int64_t n = 0; n < count; ++n) row[n] = by_y[(first + n) * orders + m];
        }
        harmonics.adjoint(directions.unit(), g_unit.data());
        for (int64_t n = 0; n < count; ++n) {
          T derivative[3];
          directions.gradient(n, g_unit.data(), by_r[first + n], derivative);
          for (int x = 0; x < 3; ++x)
            g[3 * rows[first + n] + x] = static_cast<double>(derivative[x]);
        }
      }
    });
  }

  void forward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const Call of(next);
    const Once once(of.vectors.const_data_ptr<double>(), of.idx_i.const_data_ptr<int64_t>(),
                    of.idx_j.const_data_ptr<int64_t>(), of.idx_i.size(0));
    const auto n_pairs = static_cast<int64_t>(once.kept.size());
    const auto kept = at::empty({n_pairs}, of.idx_i.options());
    const auto back = at::empty({n_pairs}, of.idx_i.options().dtype(at::kBool));
    std::copy(once.kept.begin(), once.kept.end(), kept.data_ptr<int64_t>());
    std::copy(once.back.begin(), once.back.end(), back.data_ptr<bool>());
    const auto r = at::empty({n_pairs}, of.steps[0].options());
    const auto ylm = at::empty({n_pairs, of.orders()}, of.steps[0].options());
    AT_DISPATCH_FLOATING_TYPES(of.type(), "so3k::geometry_forward",
                               [&] { evaluate<scalar_t>(of, kept, r, ylm); });
    next.give({r, ylm, of.idx_i.index_select(0, kept), of.idx_j.index_select(0, kept), back, kept});
  }

  void backward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const auto given_r = next.optional(), given_ylm = next.optional();
    for (int k = 0; k < 3; ++k) next.optional();    // of indices and flags
    const auto kept = next.tensor();
    const Call of(next);
    const auto n_pairs = kept.size(0);
    const auto options = of.steps[0].options();
    const auto g_r = or_zeros(given_r, at::empty({n_pairs}, options));
    const auto g_ylm = or_zeros(given_ylm, at::empty({n_pairs, of.orders()}, options));
    const auto g = at::zeros_like(of.vectors);
    AT_DISPATCH_FLOATING_TYPES(of.type(), "so3k::geometry_backward",
                               [&] { adjoint<scalar_t>(of, kept, g_r, g_ylm, g); });
    next.give({g});
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  using namespace So3k;
  // no shapes for Meta: the number of pairs depends on the vectors
  define_differentiable(library, operators::GEOMETRY, 1, 1);
  implement_passes<&forward, &backward>(library, "geometry", c10::DispatchKey::CPU);
}
