/* so3k-md: messages between neighbors and their adjoint, a warp for each centre. MIT. */

#include "adjoint.h"
#include "near.h"

namespace So3k {

/// Pairs begin to end − 1 of the list as a tile.
struct NearRows : TileRows {
  long long pair[2];

  __device__ NearRows(const Near &of, const Lane &me, long long begin, long long end)
  {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      there[row] = begin + me.group + 8 * row < end;
      pair[row] = there[row] ? begin + me.group + 8 * row : begin;
      j[row] = of.j[pair[row]];
      centre[row] = j[row] < of.rows.centres ? j[row] : -1;
      r[row] = of.r[pair[row]];
      forth[row] = there[row] ? of.cut[pair[row]] : 0.0f;
      back[row] = centre[row] < 0 ? 0.0f : forth[row];
      y[row] = of.ylm + pair[row] * ORDERS;
    }
  }
};

/// Adds the messages Δx of one head of a tile to the row of its centre.
inline __device__ void add_feature_messages(const AttentionRows &of, const Lane &me,
                                            const Tile &tile, long long i, int column,
                                            float *row_of_x)
{
  constexpr int NT = Shape::WIDE / 8;
  const int mine = column + 2 * me.quad;
  float w[NT][4], alpha[2], sum[2 * NT] = {};
  tile.filters<NT>(column, w);
  const float *q = of.q + i * Shape::COLUMNS + mine, *k = of.k + mine;
  const auto &j = tile.rows.j;
  attention<NT>(me, {q, q}, {k + j[0] * Shape::COLUMNS, k + j[1] * Shape::COLUMNS}, w, alpha);
#pragma unroll
  for (int row = 0; row < 2; ++row)
#pragma unroll
    for (int n = 0; n < NT; ++n) {
      const float2 v = two(of.v + j[row] * Shape::FEATURES + mine + 8 * n);
      sum[2 * n] += alpha[row] * tile.rows.forth[row] * v.x;
      sum[2 * n + 1] += alpha[row] * tile.rows.forth[row] * v.y;
    }
  add_to_row<2 * NT>(sum, me, row_of_x + column);
}

}    // namespace So3k

extern "C" __global__ void __launch_bounds__(32 * So3k::WARPS) near_forward(const So3k::Near of)
{
  using namespace So3k;
  __shared__ float rows_of_x[WARPS][Shape::FEATURES];
  const Lane me;
  const auto i = centre_of(me);
  if (i >= of.rows.centres) return;
  float *row_of_x = rows_of_x[me.warp];
  for (int f = me.lane; f < Shape::FEATURES; f += 32) row_of_x[f] = 0.0f;
  __syncwarp();
  Orders dchi;
  const long long end = of.first[i + 1];
  for (long long begin = of.first[i]; begin < end; begin += TILE) {
    const NearRows rows(of, me, begin, end);
    Tile tile(of.filters, of.rows, me, i, rows);
    tile.fill_hidden(0);
#pragma unroll 1
    for (int h = 0; h < Shape::HEADS; ++h)
      add_feature_messages(of.rows, me, tile, i, h * Shape::WIDE, row_of_x);
    tile.fill_hidden(1);
#pragma unroll
    for (int l = 0; l < Shape::DEGREES; ++l) add_degree_messages(of.rows, me, tile, i, l, dchi);
  }
  __syncwarp();
  for (int f = me.lane; f < Shape::FEATURES; f += 32) of.dx[i * Shape::FEATURES + f] = row_of_x[f];
  dchi.store(me, of.dchi + i * ORDERS);
}

extern "C" __global__ void __launch_bounds__(32 * So3k::WARPS) near_backward(const So3k::Near of)
{
  using namespace So3k;
  constexpr int WIDTH = 2 * Shape::COLUMNS + Shape::FEATURES;
  __shared__ float own_rows[WARPS][WIDTH];
  const Lane me;
  const auto i = centre_of(me);
  if (i >= of.rows.centres) return;
  float *row = own_rows[me.warp];
  const OwnRows own = {row, row + Shape::COLUMNS, row + 2 * Shape::COLUMNS};
  for (int f = me.lane; f < WIDTH; f += 32) row[f] = 0.0f;
  __syncwarp();
  Orders by_chi;
  const long long end = of.first[i + 1];
  for (long long begin = of.first[i]; begin < end; begin += TILE) {
    const NearRows rows(of, me, begin, end);
    ByHarmonics by_y;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      by_y.share[n] = rows.centre[n] < 0 ? 1.0f : 0.5f;    // the reversed pair has the other half
      by_y.to[n] = of.g_ylm + rows.pair[n] * ORDERS;
    }
    Tile tile(of.filters, of.rows, me, i, rows);
    TileAdjoint adjoint(of.rows, me, i, i, tile, own, by_y);
    tile.fill_hidden(0);
#pragma unroll 1
    for (int h = 0; h < Shape::HEADS; ++h) adjoint.features<Shape::WIDE / 8>(h * Shape::WIDE);
    adjoint.through_hidden(0);
    tile.fill_hidden(1);
#pragma unroll 1
    for (int l = 0; l < Shape::DEGREES; ++l) adjoint.degree(l);
    adjoint.through_hidden(1);
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const float by_r = adjoint.by_distance(n);
      const float by_cut = adjoint.by_forth[n] + (rows.centre[n] < 0 ? 0.0f : adjoint.by_back[n]);
      if (!rows.there[n] || me.quad != 0) continue;
      of.g_r[rows.pair[n]] = by_y.share[n] * by_r;
      of.g_cut[rows.pair[n]] = by_y.share[n] * by_cut;
    }
    if constexpr (Shape::HIDDEN > 0) adjoint.add_by_chi({}, by_chi);
  }
  __syncwarp();
  for (int f = me.lane; f < Shape::COLUMNS; f += 32) {
    of.rows.g_q[i * Shape::COLUMNS + f] = own.q[f];
    of.rows.g_k[i * Shape::COLUMNS + f] = own.k[f];
  }
  for (int f = me.lane; f < Shape::FEATURES; f += 32)
    of.rows.g_v[i * Shape::FEATURES + f] = own.v[f];
  by_chi.store(me, of.rows.g_chi + i * ORDERS);
}
