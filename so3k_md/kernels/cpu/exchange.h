/* so3k-md: the exchange between features and SPHCs of one atom, for CPUs and GPUs. MIT. */

#ifndef SO3K_EXCHANGE_H
#define SO3K_EXCHANGE_H

#include "everywhere.h"

namespace So3k {

constexpr int MOST_DEGREES = 8;

/// Shape and constants of the rows.
template <typename T> struct RowShape {
  int features, degrees, width;    // width: orders of all degrees
  int order[MOST_DEGREES + 1];     // first order of each degree, and their number
  T weight[MOST_DEGREES];          // of ‖χ‖² in its invariant; 0 where the invariant is the norm
  T floor, eps;                    // ε² + 1e-30, ε
};

/// ‖χ^(l)‖² of one row.
template <typename T> SO3K_EVERYWHERE T square(const RowShape<T> &of, const T *row, int l)
{
  T sum = 0;
  for (int m = of.order[l]; m < of.order[l + 1]; ++m) sum += row[m] * row[m];
  return sum;
}

/// χ^(l) ← s_l χ^(l) / √(‖χ^(l)‖² + ε²), and its adjoint in place of the derivative by the result.
template <typename T> struct ChiNorms {
  RowShape<T> shape;
  long long rows;
  const T *chi, *scale;
  T *to;

  SO3K_EVERYWHERE void forward(long long n, int l) const
  {
    const T *row = chi + n * shape.width;
    const T factor = scale[l] / sqrt(square(shape, row, l) + shape.floor);
    for (int m = shape.order[l]; m < shape.order[l + 1]; ++m)
      to[n * shape.width + m] = factor * row[m];
  }
  SO3K_EVERYWHERE void backward(long long n, int l) const
  {
    const T *row = chi + n * shape.width;
    T *g = to + n * shape.width;
    const T s = square(shape, row, l) + shape.floor, factor = scale[l] / sqrt(s);
    T along = 0;
    for (int m = shape.order[l]; m < shape.order[l + 1]; ++m) along += row[m] * g[m];
    for (int m = shape.order[l]; m < shape.order[l + 1]; ++m)
      g[m] = factor * (g[m] - row[m] * (along / s));
  }
};

/// Invariants of χ in some columns of a matrix, and their adjoint, which is added.
template <typename T> struct ChiInvariants {
  RowShape<T> shape;
  long long rows;
  const T *chi;
  T *invariants;    // of degree 0 of row 0
  long long columns;
  T *g_chi;

  SO3K_EVERYWHERE void forward(long long n, int l) const
  {
    const T s = square(shape, chi + n * shape.width, l), weight = shape.weight[l];
    invariants[n * columns + l] = weight > 0 ? weight * s : sqrt(s + shape.floor) - shape.eps;
  }
  SO3K_EVERYWHERE void backward(long long n, int l) const
  {
    const T *row = chi + n * shape.width;
    const T weight = shape.weight[l];
    const T by_s = weight > 0 ? weight : T(0.5) / sqrt(square(shape, row, l) + shape.floor);
    const T factor = 2 * invariants[n * columns + l] * by_s;
    for (int m = shape.order[l]; m < shape.order[l + 1]; ++m)
      g_chi[n * shape.width + m] += factor * row[m];
  }
};

/// x' = f (x + a1 + a2 a3), χ'^(l) = (1 + b1_l) χ^(l) + b2_l χ̃^(l), where y = (a1, a2, b1, b2) is
/// the output of a linear map. Without SelfMix a2, a3, b2 and χ̃ are absent and f = 1; with it f =
/// 1/√3.
template <typename T> struct Exchange {
  RowShape<T> shape;
  long long rows;
  const T *x, *chi, *y, *a3, *mixed;    // mixed: χ̃; a3, mixed: null without SelfMix
  T *to_x, *to_chi;
  const T *g_x, *g_chi;    // derivatives by the results
  T *g_y, *g_old, *g_a3, *g_mixed;
  T factor;

  SO3K_EVERYWHERE int first_b() const { return (a3 ? 2 : 1) * shape.features; }
  SO3K_EVERYWHERE int columns() const { return (a3 ? 2 : 1) * (shape.features + shape.degrees); }

  SO3K_EVERYWHERE void feature(long long n, int f) const
  {
    const auto k = n * shape.features + f;
    const T *a = y + n * columns();
    to_x[k] = factor * (x[k] + a[f] + (a3 ? a[shape.features + f] * a3[k] : T(0)));
  }
  SO3K_EVERYWHERE void feature_backward(long long n, int f) const
  {
    const auto k = n * shape.features + f;
    const T each = factor * g_x[k];
    T *g_a = g_y + n * columns();
    g_a[f] = each;
    if (!a3) return;
    g_a[shape.features + f] = each * a3[k];
    g_a3[k] = each * y[n * columns() + shape.features + f];
  }
  SO3K_EVERYWHERE void degree(long long n, int l) const
  {
    const T *b = y + n * columns() + first_b();
    for (auto k = n * shape.width + shape.order[l]; k < n * shape.width + shape.order[l + 1]; ++k)
      to_chi[k] = (1 + b[l]) * chi[k] + (mixed ? b[shape.degrees + l] * mixed[k] : T(0));
  }
  SO3K_EVERYWHERE void degree_backward(long long n, int l) const
  {
    const T *b = y + n * columns() + first_b();
    T *g_b = g_y + n * columns() + first_b();
    T by_b1 = 0, by_b2 = 0;
    for (auto k = n * shape.width + shape.order[l]; k < n * shape.width + shape.order[l + 1]; ++k) {
      by_b1 += g_chi[k] * chi[k];
      g_old[k] = (1 + b[l]) * g_chi[k];
      if (!mixed) continue;
      by_b2 += g_chi[k] * mixed[k];
      g_mixed[k] = b[shape.degrees + l] * g_chi[k];
    }
    g_b[l] = by_b1;
    if (mixed) g_b[shape.degrees + l] = by_b2;
  }
};

}    // namespace So3k

#endif
