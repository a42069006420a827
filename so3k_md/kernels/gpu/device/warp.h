/* so3k-md: the threads of a warp and their sums. MIT. */

#ifndef SO3K_GPU_WARP_H
#define SO3K_GPU_WARP_H

namespace So3k {

#ifdef __CUDACC_RTC__
#define SO3K_ALIGNED(type, at) reinterpret_cast<type>(at)
#else
#define SO3K_ALIGNED(type, at) emulate::aligned<type>(at)
#endif

constexpr unsigned ALL = 0xffffffffu;    // threads of a warp
constexpr int WARPS = 4;                 // of a block

/// Loads and stores of several numbers at once. Their addresses are multiples of their size.
inline __device__ float2 two(const float *at)
{
  return *SO3K_ALIGNED(const float2 *, at);
}
inline __device__ uint4 four(const uint4 *at)
{
  return __ldg(SO3K_ALIGNED(const uint4 *, at));
}

/// A thread of a warp. In a tile of a matrix product it has rows `group` and `group + 8`, and
/// columns `2 quad` and `2 quad + 1` of each eight.
struct Lane {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int group = lane / 4, quad = lane % 4;

  /// Number of the threads before this one among those of a ballot.
  __device__ int before(unsigned ballot) const { return __popc(ballot & ((1u << lane) - 1)); }
  /// The sum over the four threads that share a row.
  __device__ float over_quad(float value) const
  {
    value += __shfl_xor_sync(ALL, value, 1);
    return value + __shfl_xor_sync(ALL, value, 2);
  }
  /// The sum over the eight threads that share a column.
  __device__ float over_groups(float value) const
  {
    for (int mask = 4; mask < 32; mask *= 2) value += __shfl_xor_sync(ALL, value, mask);
    return value;
  }
};

/// The centre of this warp.
inline __device__ long long centre_of(const Lane &me)
{
  return static_cast<long long>(blockIdx.x) * WARPS + me.warp;
}

/// Adds N values of each thread, of columns 8 (n / 2) + 2 quad + n % 2, summed over the rows, to
/// `row`.
///
/// Each step halves the values of a thread: it sends one half to its partner and adds what it
/// receives to the other, so that a column costs fewer than two shuffles instead of three. Only
/// this warp writes the row.
template <int N, int MASK = 16>
__device__ void add_to_row(float *v, const Lane &me, float *row, int first = 0, bool mine = true)
{
  if constexpr (MASK < 4) {
    if (mine)
#pragma unroll
      for (int n = 0; n < N; ++n)
        row[8 * ((first + n) / 2) + 2 * me.quad + (first + n) % 2] += v[n];
  } else if constexpr (N % 2 == 0) {
    const bool upper = me.lane & MASK;
#pragma unroll
    for (int n = 0; n < N / 2; ++n) {
      const float sent = upper ? v[n] : v[n + N / 2], kept = upper ? v[n + N / 2] : v[n];
      v[n] = kept + __shfl_xor_sync(ALL, sent, MASK);
    }
    add_to_row<N / 2, MASK / 2>(v, me, row, first + (upper ? N / 2 : 0), mine);
  } else {
#pragma unroll
    for (int n = 0; n < N; ++n) v[n] += __shfl_xor_sync(ALL, v[n], MASK);
    add_to_row<N, MASK / 2>(v, me, row, first, mine && !(me.lane & MASK));
  }
}

}    // namespace So3k

#endif
