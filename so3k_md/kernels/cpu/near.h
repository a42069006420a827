/* so3k-md: the filters of a tile of neighbors. MIT. */

#ifndef SO3K_NEAR_H
#define SO3K_NEAR_H

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "filter.h"
#include "pairs.h"

namespace So3k {

/// The filters of a tile of pairs, (pairs, 2F), and their adjoint.
template <typename T> class NearFilters {
 public:
  static constexpr int64_t SIZE = SphericalFilter<T>::SIZE;

  NearFilters(const Layer<T> &layer, Invariants<T> invariants, SphericalFilter<T> spherical) :
      layer(layer), invariants(std::move(invariants)), spherical(std::move(spherical)),
      bare(this->spherical.is_empty()), square(SIZE * layer.degrees)
  {
  }

  void evaluate(int64_t first, int64_t last, T *w)
  {
    const auto columns = 2 * layer.width;
    if (bare) std::fill_n(w, (last - first) * columns, T(0));
    for (auto p = first; p < last && !bare; ++p) {
      const T *mine = layer.chi + layer.i[p] * layer.orders;
      const T *other = layer.chi_src + layer.j[p] * layer.orders;
      for (int64_t l = 0; l < layer.degrees; ++l) {
        T sum = 0;
        for (auto m = layer.order[l]; m < layer.order[l + 1]; ++m)
          sum += (mine[m] - other[m]) * (mine[m] - other[m]);
        square[(p - first) * layer.degrees + l] = sum;
        spherical.distance(p - first)[l] = invariants.value(l, sum);
      }
    }
    if (!bare) spherical.evaluate(last - first, w);
    for (auto p = first; p < last; ++p) layer.table.add(layer.r[p], w + (p - first) * columns);
  }

  void adjoint(int64_t first, int64_t last, const T *g_w, T *g_r, T *g_chi, T *g_chi_src)
  {
    const auto columns = 2 * layer.width;
    for (auto p = first; p < last; ++p)
      g_r[p] = layer.table.derivative(layer.r[p], g_w + (p - first) * columns);
    if (bare) return;
    spherical.adjoint(last - first, g_w);
    for (auto p = first; p < last; ++p) {
      const auto i = layer.i[p] * layer.orders, j = layer.j[p] * layer.orders;
      for (int64_t l = 0; l < layer.degrees; ++l) {
        const T s = square[(p - first) * layer.degrees + l];
        const T derivative = 2 * spherical.gradient(p - first)[l] * invariants.derivative(l, s);
        for (auto m = layer.order[l]; m < layer.order[l + 1]; ++m) {
          const T share = derivative * (layer.chi[i + m] - layer.chi_src[j + m]);
          g_chi[i + m] += share;
          g_chi_src[j + m] -= share;
        }
      }
    }
  }

 private:
  const Layer<T> &layer;
  Invariants<T> invariants;
  SphericalFilter<T> spherical;
  bool bare;    // without a spherical part
  std::vector<T> square;
};

}    // namespace So3k

#endif
