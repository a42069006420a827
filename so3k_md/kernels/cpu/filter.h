/* so3k-md: the spherical part of the filters of a tile of pairs. MIT. */

#ifndef SO3K_FILTER_H
#define SO3K_FILTER_H

#include <ATen/ATen.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "dual.h"
#include "multiply.h"

namespace So3k {

/// Invariants of χ_i − χ_j, one for each degree, from s = Σ_m (χ_i − χ_j)_m², a number or a dual
/// number.
template <typename T> struct Invariants {
  std::vector<T> weight;    // of s; 0 where the invariant is the norm
  T floor, eps;             // ε² + 1e-30, ε

  Invariants(const std::vector<int64_t> &degrees, bool squared, double eps) :
      floor(static_cast<T>(eps * eps + 1e-30)), eps(static_cast<T>(eps))
  {
    for (const auto degree : degrees)
      weight.push_back(squared ? 1 / std::sqrt(T(2 * degree + 1)) : T(0));
  }

  template <typename N> N value(int64_t l, N s) const
  {
    return weight[l] > 0 ? s * weight[l] : sqrt(s + floor) - eps;
  }
  template <typename N> N derivative(int64_t l, N s) const
  {
    return weight[l] > 0 ? s * T(0) + weight[l] : T(0.5) / sqrt(s + floor);
  }
};

/// w = out · silu(into · d + bias) of the invariants d of some pairs; one or more such filters side
/// by side.
template <typename T> class SphericalFilter {
 public:
  static constexpr int64_t SIZE = 256;    // pairs, whose filters fit the second-level cache

  /// `into` (degrees, parts · H), `bias` (parts · H), `out` (parts, H, F),
  /// `transposed` (parts, F, H).
  SphericalFilter(const T *into, const T *bias, const T *out, const T *transposed, int64_t degrees,
                  int64_t hidden, int64_t width, int64_t parts) :
      into(into), bias(bias), out(out), transposed(transposed), degrees(degrees), hidden(hidden),
      width(width), parts(parts), distances(SIZE * degrees), gradients(SIZE * degrees)
  {
    const auto options = at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value);
    for (auto *each : {&pre, &share, &active, &g_active})
      *each = at::empty({SIZE, parts * hidden}, options);
  }

  /// Whether the filters have no part besides the table.
  bool is_empty() const { return hidden == 0; }

  /// The invariants of pair n, to be filled in before `evaluate`.
  T *distance(int64_t n) { return &distances[n * degrees]; }
  /// Their derivatives, set by `adjoint`.
  const T *gradient(int64_t n) const { return &gradients[n * degrees]; }

  /// Filters of the first pairs, (count, parts · F).
  void evaluate(int64_t count, T *w)
  {
    const auto columns = parts * hidden;
    T *x = pre.data_ptr<T>(), *y = active.data_ptr<T>();
    multiply(distances.data(), degrees, into, columns, degrees, x, columns, count, columns);
    for (int64_t n = 0; n < count; ++n)
#pragma omp simd
      for (int64_t h = 0; h < columns; ++h) x[n * columns + h] += bias[h];
    auto shares = share.narrow(0, 0, count);
    at::sigmoid_out(shares, pre.narrow(0, 0, count));    // has the vector form of exp
    const T *part_of = share.const_data_ptr<T>();
#pragma omp simd
    for (int64_t k = 0; k < count * columns; ++k) y[k] = x[k] * part_of[k];
    for (int64_t part = 0; part < parts; ++part)
      multiply(y + part * hidden, columns, out + part * hidden * width, width, hidden,
               w + part * width, parts * width, count, width);
  }

  /// From the derivatives of the filters last evaluated to those of the invariants.
  void adjoint(int64_t count, const T *g_w)
  {
    const auto columns = parts * hidden;
    T *back = g_active.data_ptr<T>();
    for (int64_t part = 0; part < parts; ++part)
      multiply(g_w + part * width, parts * width, transposed + part * hidden * width, hidden, width,
               back + part * hidden, columns, count, hidden);
    const T *x = pre.const_data_ptr<T>(), *s = share.const_data_ptr<T>();
#pragma omp simd
    for (int64_t k = 0; k < count * columns; ++k) back[k] *= s[k] * (1 + x[k] * (1 - s[k]));
    for (int64_t n = 0; n < count; ++n)
      for (int64_t l = 0; l < degrees; ++l) {
        const T *g = back + n * columns, *row = into + l * columns;
        T sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t h = 0; h < columns; ++h) sum += g[h] * row[h];
        gradients[n * degrees + l] = sum;
      }
  }

 private:
  const T *into, *bias, *out, *transposed;
  int64_t degrees, hidden, width, parts;
  std::vector<T> distances, gradients;
  at::Tensor pre, share, active, g_active;    // (SIZE, parts · H): before silu, sigmoid, after
};

}    // namespace So3k

#endif
