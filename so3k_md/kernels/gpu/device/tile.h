/* so3k-md: 16 pairs of one centre and their filters. MIT.
 *
 * The filters of a tile are one product for each head, (16, INNER) (INNER, columns of the head):
 * the hidden row of the spherical filter beside functions of the distance. The result stays in
 * registers. */

#ifndef SO3K_GPU_TILE_H
#define SO3K_GPU_TILE_H

#include "attention.h"
#include "product.h"
#include "shape.h"
#include "warp.h"

namespace So3k {

constexpr int TILE = 16;    // pairs

/// The two pairs of a tile that a thread has, those of rows `group` and `group + 8`.
struct TileRows {
  bool there[2];              // whether the tile has this row; else it repeats another pair
  long long j[2];             // row of the source
  long long centre[2];        // row of the source among the centres, or -1
  float r[2];                 // distance, Å
  float forth[2], back[2];    // cutoff functions of the messages to the centre and to the source
  const float *y[2];          // harmonics
};

/// Their filters.
struct Tile {
  const Filters &of;
  const Lane &me;
  const TileRows &rows;
  float square[2][Shape::DEGREES], invariant[2][Shape::DEGREES];
  Operand active[Shape::INNER / 16];    // left factor: hidden rows, then functions of the distance

  __device__ Tile(const Filters &of, const AttentionRows &atoms, const Lane &me, long long centre,
                  const TileRows &rows) : of(of), me(me), rows(rows)
  {
#pragma unroll
    for (int row = 0; row < 2; ++row) find_interval(row);
    if constexpr (Shape::HIDDEN > 0) fill_invariants(atoms, centre);
    fill_functions();
  }

  /// The filters of 8 NT columns from one on, in the layout of a product.
  template <int NT> __device__ void filters(int column, float (&w)[NT][4]) const
  {
    constexpr int STEPS = Shape::INNER / 16;
    const auto *out = static_cast<const uint4 *>(of.out) + (column / 8) * STEPS * 32 + me.lane;
#pragma unroll
    for (int n = 0; n < NT; ++n) {
#pragma unroll
      for (int k = 0; k < 4; ++k) w[n][k] = 0.0f;
#pragma unroll
      for (int s = 0; s < STEPS; ++s) multiply(w[n], active[s], out + (n * STEPS + s) * 32);
    }
  }

  /// Before `filters`: the hidden rows of the filters of features (0) or of degrees (1).
  __device__ void fill_hidden(int part)
  {
#pragma unroll
    for (int s = 0; s < Shape::HIDDEN / 16; ++s)
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int row = 0; row < 2; ++row) {
          const int h = 16 * s + 8 * half + 2 * me.quad;
          active[s].set(row, half, silu(before(part, row, h)), silu(before(part, row, h + 1)));
        }
  }

  /// Number h of the hidden layer before its activation.
  __device__ float before(int part, int row, int h) const
  {
    float x = of.hidden_bias[part * Shape::HIDDEN + h];
#pragma unroll
    for (int l = 0; l < Shape::DEGREES; ++l)
      x += invariant[row][l] * of.hidden[(Shape::PARTS * l + part) * Shape::HIDDEN + h];
    return x;
  }

  /// Derivative of function n of the distance.
  __device__ float derivative(int row, int n) const
  {
    float sum = 5.0f * coefficients[row][5 * Shape::RADIAL + n];
#pragma unroll
    for (int k = 4; k >= 1; --k) sum = sum * t[row] + k * coefficients[row][k * Shape::RADIAL + n];
    return sum / of.width;
  }

  /// Derivative of invariant l by s = Σ_m (χ_i − χ_j)_m².
  __device__ float by_square(int row, int l) const
  {
    return Shape::SQUARED ? rsqrtf(2.0f * Shape::degree(l) + 1.0f)
                          : 0.5f * rsqrtf(square[row][l] + of.floor);
  }

 private:
  const float *coefficients[2];    // of the interval in the table
  float t[2];                      // 0 to 1 in the interval

  static __device__ float silu(float x) { return x / (1.0f + __expf(-x)); }

  __device__ void find_interval(int row)
  {
    const float x = fminf(rows.r[row] / of.width, static_cast<float>(of.intervals));
    const int interval = static_cast<int>(x);    // the last one is beyond the cutoff
    coefficients[row] = of.table + static_cast<long long>(interval) * 6 * Shape::RADIAL;
    t[row] = x - static_cast<float>(interval);
  }

  __device__ float function(int row, int n) const
  {
    float sum = coefficients[row][5 * Shape::RADIAL + n];
#pragma unroll
    for (int k = 4; k >= 0; --k) sum = sum * t[row] + coefficients[row][k * Shape::RADIAL + n];
    return sum;
  }

  __device__ void fill_functions()
  {
#pragma unroll
    for (int s = 0; s < Shape::RADIAL / 16; ++s)
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int row = 0; row < 2; ++row) {
          const int n = 16 * s + 8 * half + 2 * me.quad;
          active[Shape::HIDDEN / 16 + s].set(row, half, function(row, n), function(row, n + 1));
        }
  }

  /// Each thread of a row sums every fourth degree; then they exchange the sums.
  __device__ void fill_invariants(const AttentionRows &atoms, long long centre)
  {
    float own[2][(Shape::DEGREES + 3) / 4] = {};
#pragma unroll
    for (int l = 0; l < Shape::DEGREES; ++l) {
      if (me.quad == l % 4)
        for (int m = Shape::order(l); m < Shape::order(l + 1); ++m)
#pragma unroll
          for (int row = 0; row < 2; ++row) {
            const float d =
                atoms.chi[centre * ORDERS + m] - atoms.chi_src[rows.j[row] * ORDERS + m];
            own[row][l / 4] += d * d;
          }
    }
#pragma unroll
    for (int row = 0; row < 2; ++row)
#pragma unroll
      for (int l = 0; l < Shape::DEGREES; ++l) {
        const float s = __shfl_sync(ALL, own[row][l / 4], me.lane - me.quad + l % 4);
        square[row][l] = s;
        invariant[row][l] = Shape::SQUARED ? s * rsqrtf(2.0f * Shape::degree(l) + 1.0f)
                                           : sqrtf(s + of.floor) - of.eps;
      }
  }
};

/// Σ_f q_f w_f k_f of both pairs over the 8 NT columns of a head.
template <int NT>
__device__ void attention(const Lane &me, const float *const (&q)[2], const float *const (&k)[2],
                          const float (&w)[NT][4], float (&alpha)[2])
{
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    float sum = 0.0f;
#pragma unroll
    for (int n = 0; n < NT; ++n) {
      const float2 a = two(q[row] + 8 * n), b = two(k[row] + 8 * n);
      sum += a.x * w[n][2 * row] * b.x + a.y * w[n][2 * row + 1] * b.y;
    }
    alpha[row] = me.over_quad(sum);
  }
}

/// One number for each order m, of which a thread has every fourth of each degree.
struct Orders {
  static constexpr int MOST = 3;    // of a degree up to l = 5
  float of[Shape::DEGREES][MOST] = {};

  /// work(number, order) for those of degree number l that the thread has.
  template <typename Work> __device__ void each(int l, int quad, Work work)
  {
#pragma unroll
    for (int n = 0; n < MOST; ++n) {
      const int m = 4 * n + quad;
      if (m < 2 * Shape::degree(l) + 1) work(of[l][n], Shape::order(l) + m);
    }
  }

  /// Writes the sums over the rows of the tile.
  __device__ void store(const Lane &me, float *row)
  {
#pragma unroll
    for (int l = 0; l < Shape::DEGREES; ++l) {
#pragma unroll
      for (int n = 0; n < MOST; ++n)
        if (4 * n < 2 * Shape::degree(l) + 1) of[l][n] = me.over_groups(of[l][n]);
      if (me.group == 0) each(l, me.quad, [&](float sum, int order) { row[order] = sum; });
    }
  }
};

/// Adds the messages Δχ of degree number l of a tile.
inline __device__ void add_degree_messages(const AttentionRows &of, const Lane &me,
                                           const Tile &tile, long long i, int l, Orders &dchi)
{
  constexpr int NT = Shape::NARROW / 8;
  const int column = Shape::FEATURES + l * Shape::NARROW, mine = column + 2 * me.quad;
  float w[NT][4], alpha[2];
  tile.filters<NT>(column, w);
  const float *q = of.q + i * Shape::COLUMNS + mine, *k = of.k + mine;
  const auto &j = tile.rows.j;
  attention<NT>(me, {q, q}, {k + j[0] * Shape::COLUMNS, k + j[1] * Shape::COLUMNS}, w, alpha);
  dchi.each(l, me.quad, [&](float &sum, int m) {
#pragma unroll
    for (int row = 0; row < 2; ++row)
      sum += alpha[row] * tile.rows.forth[row] * tile.rows.y[row][m];
  });
}

}    // namespace So3k

#endif
