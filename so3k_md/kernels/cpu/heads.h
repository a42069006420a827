/* so3k-md: linear maps of each head's chunk of the features. MIT. */

#ifndef SO3K_HEADS_H
#define SO3K_HEADS_H

#include <algorithm>
#include <cstdint>
#include <vector>

#include "multiply.h"

namespace So3k {

/// y_h = x_h W_h + b_h, without b if it is null, for rows that begin `x_row` and `y_row` numbers
/// apart.
template <typename T>
void by_head(const T *x, int64_t x_row, const T *weight, const T *bias, int64_t heads,
             int64_t width, T *y, int64_t y_row, int64_t n_rows)
{
  for (int64_t h = 0; h < heads; ++h)
    multiply(x + h * width, x_row, weight + h * width * width, width, width, y + h * width, y_row,
             n_rows, width);
  for (int64_t row = 0; bias && row < n_rows; ++row)
#pragma omp simd
    for (int64_t f = 0; f < heads * width; ++f) y[row * y_row + f] += bias[f];
}

/// Adds g_y,h W_hᵀ to g_x, given the transposed weights.
template <typename T>
void by_head_adjoint(const T *g_y, int64_t y_row, const T *transposed, int64_t heads, int64_t width,
                     T *g_x, int64_t x_row, int64_t n_rows)
{
  constexpr int64_t SOME = 64;    // rows at once, which stay in the cache
  std::vector<T> found(SOME * heads * width);
  for (int64_t first = 0; first < n_rows; first += SOME) {
    const auto count = std::min(SOME, n_rows - first);
    for (int64_t h = 0; h < heads; ++h)
      multiply(g_y + first * y_row + h * width, y_row, transposed + h * width * width, width, width,
               found.data() + h * width, heads * width, count, width);
    for (int64_t row = 0; row < count; ++row)
#pragma omp simd
      for (int64_t f = 0; f < heads * width; ++f)
        g_x[(first + row) * x_row + f] += found[row * heads * width + f];
  }
}

}    // namespace So3k

#endif
