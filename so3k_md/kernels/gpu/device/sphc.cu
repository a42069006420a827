/* so3k-md: messages between atoms of a group that are near in SPHC space, and their adjoint. MIT.
 *
 * A warp has one centre. It computes the softmax over its group first, then the pairs with u < 1 in
 * tiles, both directions of them in the backward pass, and last what the norms of the softmax add.
 */

#include "adjoint.h"
#include "harmonics.h"
#include "queue.h"

namespace So3k {

constexpr float LOWEST = -3e38f;    // of a distance, before the first

inline __device__ float most(float value)
{
  for (int mask = 1; mask < 32; mask *= 2) value = fmaxf(value, __shfl_xor_sync(ALL, value, mask));
  return value;
}
template <typename T> inline __device__ T total(T value)
{
  for (int mask = 1; mask < 32; mask *= 2) value += __shfl_xor_sync(ALL, value, mask);
  return value;
}

/// The harmonics of pair n of the queue.
inline __device__ Harmonics harmonics_of(const Groups &of, long long i, const Queue &queue, int n)
{
  const auto j = of.source[of.first[i] + queue.place[n]];
  float v[3];
  for (int x = 0; x < 3; ++x) v[x] = static_cast<float>(of.r_src[3 * j + x] - of.r[3 * i + x]);
  return Harmonics(of.steps, of.direction, v);
}

/// Distances and harmonics of the first pairs of the queue, a thread for each.
inline __device__ void fill_harmonics(const Groups &of, const Lane &me, long long i, Queue &queue,
                                      int count)
{
  if (me.lane < count) {
    const auto harmonics = harmonics_of(of, i, queue, me.lane);
    queue.r[me.lane] = harmonics.r;
#pragma unroll
    for (int l = 0; l < Degrees::DEGREES; ++l)
#pragma unroll
      for (int m = 0; m < 2 * Degrees::degree(l) + 1; ++m)
        queue.y[me.lane][Degrees::order(l) + m] = harmonics.y[of_all(l, m)];
  }
  __syncwarp();
}

/// Adds the derivatives by the positions of the first pairs of the queue.
inline __device__ void add_by_positions(const Groups &of, const Lane &me, long long i,
                                        const Queue &queue, int count, double (&g_r)[3])
{
  if (me.lane >= count) return;
  float g[ALL_ORDERS] = {}, g_vector[3];
#pragma unroll
  for (int l = 0; l < Degrees::DEGREES; ++l)
#pragma unroll
    for (int m = 0; m < 2 * Degrees::degree(l) + 1; ++m)
      g[of_all(l, m)] = queue.by_y[me.lane][Degrees::order(l) + m];
  harmonics_of(of, i, queue, me.lane).adjoint(of.direction, g, queue.by_r[me.lane], g_vector);
  const auto place = of.first[i] + queue.place[me.lane];
  for (int x = 0; x < 3; ++x) {
    g_r[x] -= g_vector[x];
    // else the other atom finds this at its own pair
    if (of.centre_of[place] < 0)
      atomicAdd(of.g_r_src + 3 * of.source[place] + x, static_cast<double>(g_vector[x]));
  }
}

/// The derivatives of one tile: adds to those of the centre.
struct OwnSums {
  Orders by_chi;
  double g_r[3] = {};
  float by_norm = 0.0f;
};

inline __device__ void tile_backward(const Groups &of, const Lane &me, long long i,
                                     const OwnRows &own, Queue &queue, int count, OwnSums &sums)
{
  fill_harmonics(of, me, i, queue, count);
  const GroupRows rows(of, me, i, queue, count);
  ByHarmonics by_y;
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    by_y.share[row] = 1.0f;
    by_y.to[row] = queue.by_y[rows.there[row] ? me.group + 8 * row : 0];
  }
  Tile tile(of.filters, of.rows, me, i, rows);
  TileAdjoint adjoint(of.rows, me, i, of.source[of.place_of[i]], tile, own, by_y);
  tile.fill_hidden(0);
#pragma unroll 1
  for (int l = 0; l < Shape::DEGREES; ++l) adjoint.degree(l);
  adjoint.through_hidden(0);
  float by_square[2];
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const int n = rows.there[row] ? me.group + 8 * row : 0;
    const float forth = queue.forth[n], back = queue.back[n];
    const float by_d = adjoint.by_forth[row] * SphcCutoff(forth, of.p).derivative * forth;
    const float by_d_back = adjoint.by_back[row] * SphcCutoff(back, of.p).derivative * back;
    float whole = of.filters.floor;
#pragma unroll
    for (int l = 0; l < Shape::DEGREES; ++l) whole += tile.square[row][l];
    by_square[row] = (by_d + by_d_back) * 0.5f / (of.temperature * sqrtf(whole));
    const float by_r = adjoint.by_distance(row);
    if (!rows.there[row] || me.quad != 0) continue;
    queue.by_r[n] = by_r;
    sums.by_norm += by_d;
  }
  adjoint.add_by_chi(by_square, sums.by_chi);
  __syncwarp();
  add_by_positions(of, me, i, queue, count, sums.g_r);
  __syncwarp();
}

}    // namespace So3k

extern "C" __global__ void __launch_bounds__(32 * So3k::WARPS) sphc_norms(const So3k::Groups of)
{
  using namespace So3k;
  const Lane me;
  const auto i = centre_of(me);
  if (i >= of.rows.centres) return;
  float peak = LOWEST, sum = 0.0f;
  for (long long p = me.lane; p < of.size[i]; p += 32) {
    const auto place = of.first[i] + p;
    if (place == of.place_of[i]) continue;
    const float d = distance(of, square_distance(of, i, place)), before = peak;
    peak = fmaxf(peak, d);
    sum = sum * __expf(before - peak) + __expf(d - peak);
  }
  const float highest = most(peak);
  sum = total(sum * __expf(peak - highest));
  if (me.lane == 0) of.log_norm[i] = highest + logf(sum * of.kappa / of.size[i]);
}

extern "C" __global__ void __launch_bounds__(32 * So3k::WARPS) sphc_forward(const So3k::Groups of)
{
  using namespace So3k;
  __shared__ Queue queues[WARPS];
  const Lane me;
  const auto i = centre_of(me);
  if (i >= of.rows.centres) return;
  Queue &queue = queues[me.warp];
  Orders dchi;
  each_tile(of, me, i, false, queue, [&](int count) {
    fill_harmonics(of, me, i, queue, count);
    const GroupRows rows(of, me, i, queue, count);
    Tile tile(of.filters, of.rows, me, i, rows);
    tile.fill_hidden(0);
#pragma unroll
    for (int l = 0; l < Shape::DEGREES; ++l) add_degree_messages(of.rows, me, tile, i, l, dchi);
    __syncwarp();
  });
  dchi.store(me, of.dchi + i * ORDERS);
}

extern "C" __global__ void __launch_bounds__(32 * So3k::WARPS) sphc_backward(const So3k::Groups of)
{
  using namespace So3k;
  __shared__ Queue queues[WARPS];
  __shared__ float own_rows[WARPS][2 * Shape::COLUMNS];
  const Lane me;
  const auto i = centre_of(me);
  if (i >= of.rows.centres) return;
  float *row = own_rows[me.warp];
  const OwnRows own = {row, row + Shape::COLUMNS, nullptr};
  for (int f = me.lane; f < 2 * Shape::COLUMNS; f += 32) row[f] = 0.0f;
  __syncwarp();
  Queue &queue = queues[me.warp];
  OwnSums sums;
  each_tile(of, me, i, true, queue,
            [&](int count) { tile_backward(of, me, i, own, queue, count, sums); });
  __syncwarp();
  const auto i_src = of.source[of.place_of[i]];
  for (int f = me.lane; f < Shape::COLUMNS; f += 32) {
    of.rows.g_q[i * Shape::COLUMNS + f] = own.q[f];
    of.rows.g_k[i_src * Shape::COLUMNS + f] = own.k[f];
  }
  sums.by_chi.store(me, of.rows.g_chi + i * ORDERS);
  for (int x = 0; x < 3; ++x) sums.g_r[x] = total(sums.g_r[x]);
  const float by_norm = total(sums.by_norm);
  if (me.lane != 0) return;
  for (int x = 0; x < 3; ++x) of.g_r[3 * i + x] = sums.g_r[x];
  of.by_norm[i] = by_norm;
}

/// Adds −G_i Σ_k s_ik ∂d_ik/∂χ, the derivative of the denominators, G = by_norm.
extern "C" __global__ void __launch_bounds__(32 * So3k::WARPS)
    sphc_norms_backward(const So3k::Groups of)
{
  using namespace So3k;
  const Lane me;
  const auto i = centre_of(me);
  if (i >= of.rows.centres) return;
  float by_chi[ORDERS] = {};
  for (long long p = me.lane; p < of.size[i]; p += 32) {
    const auto place = of.first[i] + p, other = of.centre_of[place];
    if (place == of.place_of[i]) continue;
    const float square = square_distance(of, i, place), d = distance(of, square);
    const float scale =
        -of.kappa / (of.size[i] * of.temperature * sqrtf(square + of.filters.floor));
    const float mine = scale * of.by_norm[i] * __expf(d - of.log_norm[i]);
    const float its = other < 0 ? 0.0f : scale * of.by_norm[other] * __expf(d - of.log_norm[other]);
    for (int m = 0; m < ORDERS; ++m) {
      const float difference = of.rows.chi[i * ORDERS + m] - of.chi_of[m * of.members + place];
      by_chi[m] += (mine + its) * difference;
      if (other < 0)
        atomicAdd(of.rows.g_chi_src + of.source[place] * ORDERS + m, -mine * difference);
    }
  }
  for (int m = 0; m < ORDERS; ++m) {
    const float sum = total(by_chi[m]);
    if (me.lane == 0) of.rows.g_chi[i * ORDERS + m] += sum;
  }
}
