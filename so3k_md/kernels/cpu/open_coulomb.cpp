/* so3k-md: electrostatics of an open structure, over all pairs; the equations are those of
 * so3k_md/physics/coulomb.py. MIT. */

#include <ATen/Dispatch.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "differentiable.h"
#include "operators.h"
#include "threads.h"

using at::Tensor;

namespace So3k {
namespace {

  constexpr int64_t TILE = 4096;           // pairs whose numbers fit the first-level caches
  constexpr int64_t LEAST_PAIRS = 4096;    // for which another thread pays

  /// Distances of a tile of pairs, V(r) = erf(r/σ) / r and V′(r) / r.
  template <typename T> class Tile {
   public:
    Tile(int64_t n_pairs, double sigma, const at::TensorOptions &options) :
        per_sigma(static_cast<T>(1 / sigma)),
        slope(static_cast<T>(2 / (std::sqrt(3.14159265358979323846) * sigma))), d(3 * n_pairs),
        r(n_pairs), v(n_pairs), by_r(n_pairs)
    {
      for (auto *each : {&u, &erf, &square, &exp}) *each = at::empty({n_pairs}, options);
    }

    /// Pairs of the atoms from `first` on with all n atoms, a row of pairs for each.
    void fill(const double *places, int64_t first, int64_t last, int64_t n)
    {
      const auto n_pairs = (last - first) * n;
      T *scaled = u.data_ptr<T>(), *minus = square.data_ptr<T>();
      for (int64_t k = 0; k < n_pairs; ++k) {
        const double *a = places + 3 * (first + k / n), *b = places + 3 * (k % n);
        T sum = 0;
        for (int x = 0; x < 3; ++x) {
          d[3 * k + x] = static_cast<T>(a[x] - b[x]);
          sum += d[3 * k + x] * d[3 * k + x];
        }
        r[k] = std::sqrt(std::max(sum, T(1e-12)));
        scaled[k] = r[k] * per_sigma;
        minus[k] = -scaled[k] * scaled[k];
      }
      at::erf_out(erf, u);    // these have the vector forms
      at::exp_out(exp, square);
      const T *part = erf.const_data_ptr<T>(), *bell = exp.const_data_ptr<T>();
      for (int64_t k = 0; k < n_pairs; ++k) {
        const T inverse = 1 / r[k];
        v[k] = part[k] * inverse;
        by_r[k] = (bell[k] * slope - v[k]) * inverse * inverse;
      }
    }

   private:
    T per_sigma, slope;
    Tensor u, erf, square, exp;

   public:
    std::vector<T> d, r, v, by_r;    // d: (pairs, 3)
  };

  /// Energies, and derivatives by charges and positions.
  using Found = std::tuple<Tensor, Tensor, Tensor>;

  template <typename T>
  void run(const Tensor &charges, const Tensor &places, int64_t first, int64_t last, double ke,
           double sigma, const Found &found)
  {
    const auto n = charges.size(0);
    const auto *q = charges.const_data_ptr<T>();
    const auto *r = places.const_data_ptr<double>();
    auto *energy = std::get<0>(found).template data_ptr<double>();
    auto *phi = std::get<1>(found).template data_ptr<T>();
    auto *derivative = std::get<2>(found).template data_ptr<T>();
    const auto rows = std::max<int64_t>(1, TILE / std::max<int64_t>(1, n));
    in_ranges(last - first, LEAST_PAIRS / std::max<int64_t>(1, n) + 1,
              [&](int64_t from, int64_t to) {
                Tile<T> tile(std::min(rows, to - from) * n, sigma, charges.options());
                for (auto begin = from; begin < to; begin += rows) {
                  const auto end = std::min(begin + rows, to);
                  tile.fill(r, first + begin, first + end, n);
                  for (auto row = begin; row < end; ++row) {
                    const auto at = (row - begin) * n;
                    const T own = q[first + row], *d = &tile.d[3 * at];
                    T sum = 0, x = 0, y = 0, z = 0;
                    tile.v[at + first + row] = 0;
#pragma omp simd reduction(+ : sum, x, y, z)
                    for (int64_t k = 0; k < n; ++k) {
                      const T factor = tile.by_r[at + k] * q[k];
                      sum += tile.v[at + k] * q[k];
                      x += d[3 * k] * factor;
                      y += d[3 * k + 1] * factor;
                      z += d[3 * k + 2] * factor;
                    }
                    phi[row] = static_cast<T>(ke) * sum;
                    energy[row] = static_cast<double>(T(0.5) * (own * phi[row]));
                    const T scale = static_cast<T>(ke) * own;
                    derivative[3 * row] = scale * x;
                    derivative[3 * row + 1] = scale * y;
                    derivative[3 * row + 2] = scale * z;
                  }
                }
              });
  }

  Found empty_results(const Tensor &q, int64_t first, int64_t last)
  {
    return {at::empty({last - first}, q.options().dtype(at::kDouble)),
            at::empty({last - first}, q.options()), at::empty({last - first, 3}, q.options())};
  }

  Found open_coulomb(const Tensor &q, const Tensor &r, int64_t first, int64_t last, double ke,
                     double sigma)
  {
    const auto charges = q.contiguous(), places = r.to(at::kDouble).contiguous();
    const auto found = empty_results(q, first, last);
    AT_DISPATCH_FLOATING_TYPES(q.scalar_type(), "so3k::open_coulomb", [&] {
      run<scalar_t>(charges, places, first, last, ke, sigma, found);
    });
    return found;
  }

  Found shapes(const Tensor &q, const Tensor &, int64_t first, int64_t last, double, double)
  {
    return empty_results(q, first, last);
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  using namespace So3k;
  library.def(operators::OPEN_COULOMB);
  library.impl("open_coulomb", torch::dispatch(c10::DispatchKey::CPU, open_coulomb));
  library.impl("open_coulomb", torch::dispatch(c10::DispatchKey::Meta, shapes));
  refuse_others(library, "open_coulomb");
}
