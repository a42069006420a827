/* so3k-md: messages between neighbors and their adjoint, a warp for each centre. MIT. */

#include "near_adjoint.h"

namespace So3k {

/// Adds the messages Δx of one head of a tile to the row of its centre.
inline __device__ void add_feature_messages(const Near &of, const Lane &me, const Tile &tile,
                                            long long i, int column, float *row_of_x)
{
  constexpr int NT = Shape::WIDE / 8;
  const int mine = column + 2 * me.quad;
  float w[NT][4], alpha[2], sum[2 * NT] = {};
  tile.filters<NT>(column, w);
  const float *q = of.q + i * Shape::COLUMNS + mine, *k = of.k + mine;
  attention<NT>(me, {q, q}, {k + tile.j[0] * Shape::COLUMNS, k + tile.j[1] * Shape::COLUMNS}, w,
                alpha);
#pragma unroll
  for (int row = 0; row < 2; ++row)
#pragma unroll
    for (int n = 0; n < NT; ++n) {
      const float2 v = two(of.v + tile.j[row] * Shape::FEATURES + mine + 8 * n);
      sum[2 * n] += alpha[row] * tile.cut[row] * v.x;
      sum[2 * n + 1] += alpha[row] * tile.cut[row] * v.y;
    }
  add_to_row<2 * NT>(sum, me, row_of_x + column);
}

/// Adds the messages Δχ of degree number l of a tile.
inline __device__ void add_degree_messages(const Near &of, const Lane &me, const Tile &tile,
                                           long long i, int l, Orders &dchi)
{
  constexpr int NT = Shape::NARROW / 8;
  const int column = Shape::FEATURES + l * Shape::NARROW, mine = column + 2 * me.quad;
  float w[NT][4], alpha[2];
  tile.filters<NT>(column, w);
  const float *q = of.q + i * Shape::COLUMNS + mine, *k = of.k + mine;
  attention<NT>(me, {q, q}, {k + tile.j[0] * Shape::COLUMNS, k + tile.j[1] * Shape::COLUMNS}, w,
                alpha);
  dchi.each(l, me.quad, [&](float &sum, int m) {
#pragma unroll
    for (int row = 0; row < 2; ++row)
      sum += alpha[row] * tile.cut[row] * of.ylm[tile.pair[row] * ORDERS + m];
  });
}

/// The centre of this warp.
inline __device__ long long centre_of(const Lane &me)
{
  return static_cast<long long>(blockIdx.x) * WARPS + me.warp;
}

}    // namespace So3k

extern "C" __global__ void __launch_bounds__(32 * So3k::WARPS) near_forward(const So3k::Near of)
{
  using namespace So3k;
  __shared__ float rows[WARPS][Shape::FEATURES];
  const Lane me;
  const auto i = centre_of(me);
  if (i >= of.centres) return;
  float *row_of_x = rows[me.warp];
  for (int f = me.lane; f < Shape::FEATURES; f += 32) row_of_x[f] = 0.0f;
  __syncwarp();
  Orders dchi;
  const long long end = of.first[i + 1];
  for (long long begin = of.first[i]; begin < end; begin += TILE) {
    Tile tile(of, me, i, begin, end);
    tile.fill_hidden(0);
#pragma unroll 1
    for (int h = 0; h < Shape::HEADS; ++h)
      add_feature_messages(of, me, tile, i, h * Shape::WIDE, row_of_x);
    tile.fill_hidden(1);
#pragma unroll
    for (int l = 0; l < Shape::DEGREES; ++l) add_degree_messages(of, me, tile, i, l, dchi);
  }
  __syncwarp();
  for (int f = me.lane; f < Shape::FEATURES; f += 32) of.dx[i * Shape::FEATURES + f] = row_of_x[f];
  dchi.store(me, of.dchi + i * ORDERS);
}

extern "C" __global__ void __launch_bounds__(32 * So3k::WARPS) near_backward(const So3k::Near of)
{
  using namespace So3k;
  constexpr int WIDTH = 2 * Shape::COLUMNS + Shape::FEATURES;
  __shared__ float rows[WARPS][WIDTH];
  const Lane me;
  const auto i = centre_of(me);
  if (i >= of.centres) return;
  float *row = rows[me.warp];
  const OwnRows own = {row, row + Shape::COLUMNS, row + 2 * Shape::COLUMNS};
  for (int f = me.lane; f < WIDTH; f += 32) row[f] = 0.0f;
  __syncwarp();
  Orders by_chi;
  const long long end = of.first[i + 1];
  for (long long begin = of.first[i]; begin < end; begin += TILE) {
    Tile tile(of, me, i, begin, end);
    TileAdjoint adjoint(of, me, i, tile, own);
    tile.fill_hidden(0);
#pragma unroll 1
    for (int h = 0; h < Shape::HEADS; ++h) adjoint.features(h * Shape::WIDE);
    adjoint.through_hidden(0);
    tile.fill_hidden(1);
#pragma unroll 1
    for (int l = 0; l < Shape::DEGREES; ++l) adjoint.degree(l);
    adjoint.through_hidden(1);
    adjoint.distances();
    if constexpr (Shape::HIDDEN > 0) adjoint.add_by_chi(by_chi);
  }
  __syncwarp();
  for (int f = me.lane; f < Shape::COLUMNS; f += 32) {
    of.g_q[i * Shape::COLUMNS + f] = own.q[f];
    of.g_k[i * Shape::COLUMNS + f] = own.k[f];
  }
  for (int f = me.lane; f < Shape::FEATURES; f += 32) of.g_v[i * Shape::FEATURES + f] = own.v[f];
  by_chi.store(me, of.g_chi + i * ORDERS);
}
