/* so3k-md: pairs of a group that are near in SPHC space, collected into tiles. MIT. */

#ifndef SO3K_GPU_QUEUE_H
#define SO3K_GPU_QUEUE_H

#include "groups.h"
#include "tile.h"

namespace So3k {

constexpr float NOT_NEAR = 1.0f;    // u of a pair that sends no message

/// ‖χ_i − χ_p‖² of a centre and a member over all orders.
inline __device__ float square_distance(const Groups &of, long long i, long long place)
{
  float sum = 0.0f;
  for (int m = 0; m < ORDERS; ++m) {
    const float d = of.rows.chi[i * ORDERS + m] - of.chi_of[m * of.members + place];
    sum += d * d;
  }
  return sum;
}

/// d_ij / T.
inline __device__ float distance(const Groups &of, float square)
{
  return (sqrtf(square + of.filters.floor) - of.filters.eps) / of.temperature;
}

/// φ(u) = 1 − (p+1)(p+2)/2 u^p + p(p+2) u^(p+1) − p(p+1)/2 u^(p+2) for u < 1, else 0, and its
/// derivative.
struct SphcCutoff {
  float value = 0.0f, derivative = 0.0f;

  __device__ SphcCutoff(float u, int p)
  {
    if (!(u < 1.0f)) return;
    float power = 1.0f;    // u^(p−1)
    for (int n = 1; n < p; ++n) power *= u;
    const float a = 0.5f * (p + 1) * (p + 2), b = static_cast<float>(p) * (p + 2);
    const float c = 0.5f * p * (p + 1);
    value = 1.0f - power * u * (a - b * u + c * u * u);
    derivative = -power * (a * p - b * (p + 1) * u + c * (p + 2) * u * u);
  }
};

/// Pairs of one warp in shared memory, up to one tile and those that 32 threads add.
struct Queue {
  int place[TILE + 32];                       // of the member, from the first of its group
  float forth[TILE + 32], back[TILE + 32];    // u of both directions
  float y[TILE][ORDERS], by_y[TILE][ORDERS], r[TILE], by_r[TILE];
};

/// The pairs after the first tile become the first ones.
inline __device__ void move_to_front(const Lane &me, Queue &queue, int count)
{
  const bool mine = me.lane < count;
  const int place = mine ? queue.place[TILE + me.lane] : 0;
  const float forth = mine ? queue.forth[TILE + me.lane] : 0.0f;
  const float back = mine ? queue.back[TILE + me.lane] : 0.0f;
  __syncwarp();
  if (mine) queue.place[me.lane] = place, queue.forth[me.lane] = forth, queue.back[me.lane] = back;
  __syncwarp();
}

/// Calls work(count) for each tile of the pairs of a centre, which stand at the front of the queue.
///
/// `reverse`: also pairs in which only the centre is near to the member.
template <typename Work>
__device__ void each_tile(const Groups &of, const Lane &me, long long i, bool reverse, Queue &queue,
                          Work work)
{
  int count = 0;
  const auto first = of.first[i];
  const int size = static_cast<int>(of.size[i]), own = static_cast<int>(of.place_of[i] - first);
  for (int base = 0; base < size; base += 32) {
    const int p = base + me.lane;
    float forth = NOT_NEAR, back = NOT_NEAR;
    if (p < size && p != own) {
      const float d = distance(of, square_distance(of, i, first + p));
      const auto other = of.centre_of[first + p];
      if (d < of.log_norm[i]) forth = __expf(d - of.log_norm[i]);
      if (reverse && other >= 0 && d < of.log_norm[other]) back = __expf(d - of.log_norm[other]);
    }
    const bool near = forth < 1.0f || back < 1.0f;
    const unsigned all = __ballot_sync(ALL, near);
    if (near) {
      const int at = count + __popc(all & ((1u << me.lane) - 1));
      queue.place[at] = p, queue.forth[at] = forth, queue.back[at] = back;
    }
    count += __popc(all);
    __syncwarp();
    while (count >= TILE) {
      work(TILE);
      count -= TILE;
      move_to_front(me, queue, count);
    }
  }
  if (count > 0) work(count);
}

/// The first pairs of the queue as a tile.
struct GroupRows : TileRows {
  __device__ GroupRows(const Groups &of, const Lane &me, long long i, const Queue &queue, int count)
  {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int n = me.group + 8 * row, at = n < count ? n : 0;
      there[row] = n < count;
      const auto place = of.first[i] + queue.place[at];
      j[row] = of.source[place];
      centre[row] = of.centre_of[place];
      r[row] = queue.r[at];
      forth[row] = there[row] ? SphcCutoff(queue.forth[at], of.p).value : 0.0f;
      back[row] = there[row] ? SphcCutoff(queue.back[at], of.p).value : 0.0f;
      y[row] = queue.y[at];
    }
  }
};

}    // namespace So3k

#endif
