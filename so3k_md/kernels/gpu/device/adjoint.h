/* so3k-md: derivatives of the messages of one tile. MIT.
 *
 * An atom sums at its own pairs what it gets as their centre and as the source of the reversed
 * pairs: filters and α of both directions are computed again. Only to sources that are no centres,
 * ghosts of other ranks, another atom adds. */

#ifndef SO3K_GPU_ADJOINT_H
#define SO3K_GPU_ADJOINT_H

#include "tile.h"

namespace So3k {

/// A number of column tiles as a type.
template <int N> struct Count {
  static constexpr int value = N;
};

/// Rows of one centre in shared memory, derivatives by its query, key and value.
struct OwnRows {
  float *q, *k, *v;
};

/// Where the derivatives by the harmonics of a thread's pairs go, and the part that this row of the
/// list takes of them.
struct ByHarmonics {
  float *to[2], share[2];
};

struct TileAdjoint {
  static constexpr int STEPS = Shape::INNER / 8, HIDDEN_STEPS = Shape::HIDDEN / 8;

  const AttentionRows &of;
  const Lane &me;
  const long long i, i_src;    // rows of the centre among the centres and among the sources
  Tile &tile;
  const TileRows &rows;
  const OwnRows &own;
  const ByHarmonics &by_y;
  float by_forth[2] = {}, by_back[2] = {};    // by the cutoff functions
  float by_invariant[2][Shape::DEGREES] = {}, by_active[STEPS][4] = {};

  __device__ TileAdjoint(const AttentionRows &of, const Lane &me, long long i, long long i_src,
                         Tile &tile, const OwnRows &own, const ByHarmonics &by_y) :
      of(of), me(me), i(i), i_src(i_src), tile(tile), rows(tile.rows), own(own), by_y(by_y)
  {
  }

  __device__ bool both(int row) const { return rows.centre[row] >= 0; }
  /// The source among the centres, or the centre itself where the source is none.
  __device__ long long source(int row) const { return both(row) ? rows.centre[row] : i; }

  /// One head: `by_alpha` turns α of both directions into the derivatives by them without the
  /// cutoff function.
  template <int NT, typename ByAlpha> __device__ void head(Count<NT>, int column, ByAlpha by_alpha)
  {
    const int mine = column + 2 * me.quad;
    const float *q_i = of.q + i * Shape::COLUMNS + mine;
    const float *k_i = of.k + i_src * Shape::COLUMNS + mine, *k_j[2], *q_j[2];
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      k_j[row] = of.k + rows.j[row] * Shape::COLUMNS + mine;
      q_j[row] = of.q + source(row) * Shape::COLUMNS + mine;
    }
    float w[NT][4], alpha[2], back[2], g[2], g_back[2];
    tile.template filters<NT>(column, w);
    attention<NT>(me, {q_i, q_i}, k_j, w, alpha);
    attention<NT>(me, q_j, {k_i, k_i}, w, back);
    by_alpha(alpha, back, g, g_back);
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      by_forth[row] += alpha[row] * g[row];
      by_back[row] += back[row] * g_back[row];
      g[row] *= rows.forth[row];
      g_back[row] *= rows.back[row];
    }
    float by_q[2 * NT] = {}, by_k[2 * NT] = {};
    Operand by_w;
#pragma unroll
    for (int n = 0; n < NT; ++n) {
      const float2 qi = two(q_i + 8 * n), ki = two(k_i + 8 * n);
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const float2 qj = two(q_j[row] + 8 * n), kj = two(k_j[row] + 8 * n);
        const float x = w[n][2 * row], y = w[n][2 * row + 1];
        by_q[2 * n] += g[row] * x * kj.x;
        by_q[2 * n + 1] += g[row] * y * kj.y;
        by_k[2 * n] += g_back[row] * x * qj.x;
        by_k[2 * n + 1] += g_back[row] * y * qj.y;
        to_ghost(row, of.g_k, Shape::COLUMNS, mine + 8 * n, g[row] * x * qi.x, g[row] * y * qi.y);
        by_w.set(row, n % 2, g[row] * qi.x * kj.x + g_back[row] * qj.x * ki.x,
                 g[row] * qi.y * kj.y + g_back[row] * qj.y * ki.y);
      }
      if (n % 2) add_by_active(column / 16 + n / 2, by_w);
    }
    add_to_row<2 * NT>(by_q, me, own.q + column);
    add_to_row<2 * NT>(by_k, me, own.k + column);
  }

  /// Messages Δx of one head of 8 NT columns.
  template <int NT> __device__ void features(int column)
  {
    const int mine = column + 2 * me.quad;
    head(Count<NT>(), column,
         [&](const float (&alpha)[2], const float (&back)[2], float (&g)[2], float (&g_back)[2]) {
           float by_v[2 * NT] = {};
#pragma unroll
           for (int row = 0; row < 2; ++row) {
             const float *v_j = of.v + rows.j[row] * Shape::FEATURES + mine;
             const float *v_i = of.v + i_src * Shape::FEATURES + mine;
             const float *x_i = of.g_dx + i * Shape::FEATURES + mine;
             const float *x_j = of.g_dx + source(row) * Shape::FEATURES + mine;
             const float forth = rows.forth[row] * alpha[row], reverse = rows.back[row] * back[row];
             float sum = 0.0f, sum_back = 0.0f;
#pragma unroll
             for (int n = 0; n < NT; ++n) {
               const float2 xi = two(x_i + 8 * n), vj = two(v_j + 8 * n);
               const float2 xj = two(x_j + 8 * n), vi = two(v_i + 8 * n);
               sum += xi.x * vj.x + xi.y * vj.y;
               sum_back += xj.x * vi.x + xj.y * vi.y;
               by_v[2 * n] += reverse * xj.x;
               by_v[2 * n + 1] += reverse * xj.y;
               to_ghost(row, of.g_v, Shape::FEATURES, mine + 8 * n, forth * xi.x, forth * xi.y);
             }
             g[row] = me.over_quad(sum);
             g_back[row] = me.over_quad(sum_back);
           }
           add_to_row<2 * NT>(by_v, me, own.v + column);
         });
  }

  /// Messages Δχ of degree number l.
  __device__ void degree(int l)
  {
    const float sign = Shape::degree(l) % 2 ? -1.0f : 1.0f;    // of Y of the reversed pair
    head(Count<Shape::NARROW / 8>(), Shape::FEATURES + l * Shape::NARROW,
         [&](const float (&alpha)[2], const float (&back)[2], float (&g)[2], float (&g_back)[2]) {
#pragma unroll
           for (int row = 0; row < 2; ++row) {
             const float *y = rows.y[row], *chi_i = of.g_dchi + i * ORDERS;
             const float *chi_j = of.g_dchi + source(row) * ORDERS;
             const float forth = by_y.share[row] * rows.forth[row] * alpha[row];
             const float reverse = by_y.share[row] * rows.back[row] * sign * back[row];
             float sum = 0.0f, sum_back = 0.0f;
             for (int m = Shape::order(l) + me.quad; m < Shape::order(l + 1); m += 4) {
               sum += chi_i[m] * y[m];
               sum_back += sign * chi_j[m] * y[m];
               if (rows.there[row]) by_y.to[row][m] = forth * chi_i[m] + reverse * chi_j[m];
             }
             g[row] = me.over_quad(sum);
             g_back[row] = me.over_quad(sum_back);
           }
         });
  }

  /// From the derivatives by the hidden rows to those by the invariants.
  __device__ void through_hidden(int part)
  {
#pragma unroll
    for (int t = 0; t < HIDDEN_STEPS; ++t)
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const int row = n / 2, h = 8 * t + 2 * me.quad + n % 2;
        const float x = tile.before(part, row, h), sigmoid = 1.0f / (1.0f + __expf(-x));
        const float g = by_active[t][n] * sigmoid * (1.0f + x * (1.0f - sigmoid));
        by_active[t][n] = 0.0f;
#pragma unroll
        for (int l = 0; l < Shape::DEGREES; ++l)
          by_invariant[row][l] += g * tile.of.hidden[(Shape::PARTS * l + part) * Shape::HIDDEN + h];
      }
  }

  /// Derivative by the distance, through the functions of the distance.
  __device__ float by_distance(int row) const
  {
    float sum = 0.0f;
#pragma unroll
    for (int t = HIDDEN_STEPS; t < STEPS; ++t)
#pragma unroll
      for (int n = 0; n < 2; ++n)
        sum += by_active[t][2 * row + n] *
            tile.derivative(row, 8 * (t - HIDDEN_STEPS) + 2 * me.quad + n);
    return me.over_quad(sum);
  }

  /// Adds the derivatives by χ of the centre.
  ///
  /// `by_square`: derivative by Σ_m (χ_i − χ_j)_m² over all degrees, besides that through the
  /// filters.
  __device__ void add_by_chi(const float (&by_square)[2], Orders &by_chi) const
  {
#pragma unroll
    for (int row = 0; row < 2; ++row)
#pragma unroll
      for (int l = 0; l < Shape::DEGREES; ++l) {
        const float through_filter = me.over_quad(by_invariant[row][l]) * tile.by_square(row, l);
        const float factor = 2.0f * (through_filter + by_square[row]);
        by_chi.each(l, me.quad, [&](float &sum, int m) {
          if (!rows.there[row]) return;
          const float g = factor * (of.chi[i * ORDERS + m] - of.chi_src[rows.j[row] * ORDERS + m]);
          sum += g;
          if (!both(row)) atomicAdd(of.g_chi_src + rows.j[row] * ORDERS + m, -g);
        });
      }
  }

 private:
  __device__ void add_by_active(int step, const Operand &by_w)
  {
    const auto *out =
        static_cast<const uint4 *>(tile.of.out_transposed) + step * STEPS * 32 + me.lane;
#pragma unroll
    for (int t = 0; t < STEPS; ++t) multiply(by_active[t], by_w, out + t * 32);
  }

  __device__ void to_ghost(int row, float *to, int width, int column, float x, float y) const
  {
    if (both(row) || !rows.there[row]) return;
    atomicAdd(to + rows.j[row] * width + column, x);
    atomicAdd(to + rows.j[row] * width + column + 1, y);
  }
};

}    // namespace So3k

#endif
