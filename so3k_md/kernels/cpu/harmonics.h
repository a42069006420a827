/* so3k-md: spherical harmonics of a tile of directions, each degree from the
 * one below. MIT. */

#ifndef SO3K_HARMONICS_H
#define SO3K_HARMONICS_H

#include <algorithm>
#include <cstdint>
#include <vector>

#include "multiply.h"

namespace So3k {

/// Harmonics of the degrees 0 to the last, a row of `tile` pairs for each
/// component.
template <typename T> class Harmonics {
 public:
  /// `steps[l]`: (2l + 3, 3 (2l + 1)), the matrix from products of Y_l and the
  /// direction to Y_(l+1).
  Harmonics(const std::vector<const T *> &steps, const std::vector<int64_t> &degrees,
            int64_t tile) : steps(steps), tile(tile), last(static_cast<int64_t>(steps.size()))
  {
    for (const auto degree : degrees)
      for (int64_t m = 0; m < 2 * degree + 1; ++m) rows.push_back(degree * degree + m);
    ylm.resize((last + 1) * (last + 1) * tile);
    gradients.resize(ylm.size());
    products.resize(3 * (2 * last + 1) * tile);
    transposed.resize((2 * last + 1) * 3 * (2 * last + 1));
  }

  /// Component `order`, counted over the degrees asked for, of all pairs.
  T *value(int64_t order) { return &ylm[rows[order] * tile]; }
  T *gradient(int64_t order) { return &gradients[rows[order] * tile]; }

  /// All values for directions (3, tile).
  void evaluate(const T *unit)
  {
    std::fill_n(ylm.begin(), tile, T(0.28209479177387814347));    // 1 / √(4π)
    for (int64_t l = 0; l < last; ++l) {
      const T *below = &ylm[l * l * tile];
      for (int64_t m = 0; m < 2 * l + 1; ++m)
        for (int64_t x = 0; x < 3; ++x)
          times(below + m * tile, unit + x * tile, &products[(3 * m + x) * tile]);
      const auto n = 3 * (2 * l + 1);
      multiply(steps[l], n, products.data(), tile, n, &ylm[(l + 1) * (l + 1) * tile], tile,
               2 * l + 3, tile);
    }
  }

  void clear_gradient() { std::fill(gradients.begin(), gradients.end(), T(0)); }

  /// Σ gradient · ∂Y/∂direction, (3, tile); adds to the derivatives of lower
  /// degrees in place.
  void adjoint(const T *unit, T *g_unit)
  {
    std::fill_n(g_unit, 3 * tile, T(0));
    for (int64_t l = last - 1; l >= 0; --l) {
      const int64_t n = 3 * (2 * l + 1), above = 2 * l + 3;
      for (int64_t row = 0; row < n; ++row)
        for (int64_t m = 0; m < above; ++m) transposed[row * above + m] = steps[l][m * n + row];
      multiply(transposed.data(), above, &gradients[(l + 1) * (l + 1) * tile], tile, above,
               products.data(), tile, n, tile);
      const T *below = &ylm[l * l * tile];
      T *g_below = &gradients[l * l * tile];
      for (int64_t m = 0; m < 2 * l + 1; ++m)
        for (int64_t x = 0; x < 3; ++x) {
          const T *g = &products[(3 * m + x) * tile];
          add_times(g, below + m * tile, g_unit + x * tile);
          add_times(g, unit + x * tile, g_below + m * tile);
        }
    }
  }

 private:
  void times(const T *a, const T *b, T *c) const
  {
#pragma omp simd
    for (int64_t p = 0; p < tile; ++p) c[p] = a[p] * b[p];
  }

  void add_times(const T *a, const T *b, T *c) const
  {
#pragma omp simd
    for (int64_t p = 0; p < tile; ++p) c[p] += a[p] * b[p];
  }

  std::vector<const T *> steps;
  int64_t tile, last;
  std::vector<int64_t> rows;    // of each order, among the components of all degrees
  std::vector<T> ylm, gradients, products, transposed;
};

}    // namespace So3k

#endif
