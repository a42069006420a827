/* so3k-md: radial filters between knots of the distance, with values and derivatives from live
 * weights. MIT. */

#ifndef SO3K_KNOTS_H
#define SO3K_KNOTS_H

#include <algorithm>
#include <cstdint>

#include "twice.h"

namespace So3k {

/// Quintic polynomials between knots x = 0, 1, …, n of x(r) = n (c + a) / c · r / (r + a), which
/// are denser at short distances. Each knot has three rows: the values of all columns there, and
/// their first two derivatives by x.
template <typename T> struct Knots {
  static constexpr double BEND = 2.0;    // a, Å
  T scale;                               // n (c + a) / c
  int64_t intervals;                     // n

  Knots(int64_t intervals, double cutoff) :
      scale(static_cast<T>(intervals * (cutoff + BEND) / cutoff)), intervals(intervals)
  {
  }

  /// The interval of a distance.
  int64_t interval(T r) const
  {
    const auto at = static_cast<int64_t>(scale * r / (r + static_cast<T>(BEND)));
    return std::min(at, intervals - 1);
  }

  /// Factors of the six rows at the ends of an interval, and their derivatives by r.
  template <typename N> void factors(N r, int64_t interval, N *value, N *slope) const
  {
    const N whole = r + static_cast<T>(BEND);
    const N t = scale * r / whole - static_cast<T>(interval);
    const N by_r = scale * static_cast<T>(BEND) / (whole * whole);
    // coefficients of t to t⁵ of each row: values, first and second derivatives at t = 0, then at t
    // = 1
    static constexpr T C[6][6] = {{1, 0, 0, -10, 15, -6},     {0, 1, 0, -6, 8, -3},
                                  {0, 0, .5, -1.5, 1.5, -.5}, {0, 0, 0, 10, -15, 6},
                                  {0, 0, 0, -4, 7, -3},       {0, 0, 0, .5, -1, .5}};
    for (int row = 0; row < 6; ++row) {
      const T *c = C[row];
      value[row] = ((((t * c[5] + c[4]) * t + c[3]) * t + c[2]) * t + c[1]) * t + c[0];
      slope[row] =
          ((((t * (5 * c[5]) + 4 * c[4]) * t + 3 * c[3]) * t + 2 * c[2]) * t + c[1]) * by_r;
    }
  }
};

/// The radial part of one filter at some knots, silu(e U + a) V + b with e the basis, and its
/// adjoint.
///
/// Rows come in threes, as in `Knots`; those of the basis are constant. Sums of the adjoint are
/// over the knots.
template <typename T> class RadialRows {
 public:
  /// basis (rows, K), hidden (K, H), out (H, F). Writes to some columns (rows, F) of a table.
  RadialRows(const at::Tensor &basis, const at::Tensor &hidden, const at::Tensor &hidden_bias,
             const at::Tensor &out, const at::Tensor &bias, at::Tensor table) :
      basis(basis), z(at::mm(basis, hidden))
  {
    by_knot(z).select(1, 0).add_(hidden_bias);
    share = at::sigmoid(by_knot(z).select(1, 0));
    active = at::empty_like(z);
    each(
        [](T z0, T z1, T z2, T s, T *to, int64_t row) {
          const T q = s * (1 - s), first = s + z0 * q, second = q * (2 + z0 * (1 - 2 * s));
          to[0] = z0 * s;
          to[row] = first * z1;
          to[2 * row] = second * z1 * z1 + first * z2;
        },
        active);
    at::mm_out(table, active, out);
    table.unflatten(0, {-1, 3}).select(1, 0).add_(bias);
  }

  /// Derivatives by hidden weight and bias, out weight and bias, from those by the table.
  std::vector<at::Tensor> adjoint(const at::Tensor &g_table, const at::Tensor &out) const
  {
    auto g = at::mm(g_table, out.t());
    each(
        [](T z0, T z1, T z2, T s, T *g, int64_t row) {
          const T q = s * (1 - s), first = s + z0 * q, second = q * (2 + z0 * (1 - 2 * s));
          const T third = q * ((1 - 2 * s) * (3 + z0 * (1 - 2 * s)) - 2 * z0 * q);
          const T g0 = g[0], g1 = g[row], g2 = g[2 * row];
          g[0] = g0 * first + g1 * second * z1 + g2 * (third * z1 * z1 + second * z2);
          g[row] = g1 * first + 2 * g2 * second * z1;
          g[2 * row] = g2 * first;
        },
        g);
    return {at::mm(basis.t(), g), by_knot(g).select(1, 0).sum(0), at::mm(active.t(), g_table),
            g_table.unflatten(0, {-1, 3}).select(1, 0).sum(0)};
  }

 private:
  static at::Tensor by_knot(const at::Tensor &rows) { return rows.view({-1, 3, rows.size(1)}); }

  /// work(z, z′, z″, sigmoid(z), where, distance of rows) for all hidden units of all knots.
  template <typename Work> void each(Work work, const at::Tensor &to) const
  {
    const auto H = z.size(1), knots = z.size(0) / 3;
    const T *from = z.template const_data_ptr<T>(), *s = share.template const_data_ptr<T>();
    T *at = to.template data_ptr<T>();
    for (int64_t k = 0; k < knots; ++k) {
      const T *row = from + 3 * k * H, *part_of = s + k * H;
      T *to_row = at + 3 * k * H;
#pragma omp simd
      for (int64_t h = 0; h < H; ++h)
        work(row[h], row[H + h], row[2 * H + h], part_of[h], to_row + h, H);
    }
  }

  at::Tensor basis, z, share, active;
};

}    // namespace So3k

#endif
