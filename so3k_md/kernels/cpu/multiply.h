/* so3k-md: products of small matrices. MIT. */

#ifndef SO3K_MULTIPLY_H
#define SO3K_MULTIPLY_H

#include <cstdint>

#include "lanes.h"

namespace So3k {

/// Rows computed at once: with three columns they and their factors fill the registers.
template <typename T> constexpr int BLOCK_ROWS = Lanes<T>::BYTES == 64 ? 8 : 4;

/// c = a b of ROWS rows and COLUMNS registers, which stay in registers while k runs.
template <typename T, int ROWS, int COLUMNS>
inline void block(const T *a, int64_t a_row, const T *b, int64_t b_row, int64_t n_k, T *c,
                  int64_t c_row)
{
  constexpr int64_t N = Lanes<T>::COUNT;
  Lane<T> sum[ROWS][COLUMNS] = {};
  for (int64_t k = 0; k < n_k; ++k) {
    Lane<T> row[COLUMNS];
#pragma GCC unroll 3
    for (int column = 0; column < COLUMNS; ++column)
      row[column] = as<Lane<T>>(b + k * b_row + column * N);
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
      const Lane<T> factor = a[i * a_row + k] - Lane<T>{};
#pragma GCC unroll 3
      for (int column = 0; column < COLUMNS; ++column) sum[i][column] += factor * row[column];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 3
    for (int column = 0; column < COLUMNS; ++column)
      as<Lane<T>>(c + i * c_row + column * N) = sum[i][column];
}

/// Some rows of c = a b, in blocks of columns as wide as there are.
template <typename T, int ROWS>
void some_rows(const T *a, int64_t a_row, const T *b, int64_t b_row, int64_t n_k, T *c,
               int64_t c_row, int64_t n_columns)
{
  constexpr int64_t N = Lanes<T>::COUNT;
  if (n_columns < N) {
    for (int i = 0; i < ROWS; ++i)
      for (int64_t column = 0; column < n_columns; ++column) {
        T sum = 0;
        for (int64_t k = 0; k < n_k; ++k) sum += a[i * a_row + k] * b[k * b_row + column];
        c[i * c_row + column] = sum;
      }
    return;
  }
  int64_t column = 0;
  for (; column + 3 * N <= n_columns; column += 3 * N)
    block<T, ROWS, 3>(a, a_row, b + column, b_row, n_k, c + column, c_row);
  for (; column + 2 * N <= n_columns; column += 2 * N)
    block<T, ROWS, 2>(a, a_row, b + column, b_row, n_k, c + column, c_row);
  for (; column + N <= n_columns; column += N)
    block<T, ROWS, 1>(a, a_row, b + column, b_row, n_k, c + column, c_row);
  const auto rest = n_columns - N;    // what is left, with some of what is done
  if (column < n_columns) block<T, ROWS, 1>(a, a_row, b + rest, b_row, n_k, c + rest, c_row);
}

/// c = a b for the small matrices of a tile, (rows, k) (k, columns), for which a call of a library
/// takes longer.
template <typename T>
void multiply(const T *a, int64_t a_row, const T *b, int64_t b_row, int64_t n_k, T *c,
              int64_t c_row, int64_t n_rows, int64_t n_columns)
{
  constexpr int ROWS = BLOCK_ROWS<T>;
  int64_t row = 0;
  for (; row + ROWS <= n_rows; row += ROWS)
    some_rows<T, ROWS>(a + row * a_row, a_row, b, b_row, n_k, c + row * c_row, c_row, n_columns);
  for (; row < n_rows; ++row)
    some_rows<T, 1>(a + row * a_row, a_row, b, b_row, n_k, c + row * c_row, c_row, n_columns);
}

}    // namespace So3k

#endif
