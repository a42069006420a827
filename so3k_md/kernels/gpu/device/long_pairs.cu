/* so3k-md: dispersion and shifted electrostatics of pairs, a thread for each pair. MIT. */

#include "long_pair.h"
#include "warp.h"

namespace So3k {

constexpr int THREADS = 128;    // of a block

/// Adds to a sum of an atom. Threads of a warp whose pairs have one first atom add up first.
inline __device__ void add(double *sums, long long row, double value, bool same)
{
  if (!same) {
    if (value != 0.0) atomicAdd(sums + row, value);
    return;
  }
  for (int mask = 1; mask < 32; mask *= 2) value += __shfl_xor_sync(ALL, value, mask);
  if (threadIdx.x % 32 == 0) atomicAdd(sums + row, value);
}

}    // namespace So3k

extern "C" __global__ void __launch_bounds__(So3k::THREADS)
    long_pairs(const So3k::LongRangePairs of)
{
  using namespace So3k;
  const auto pair = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x;
  const bool there = pair < of.pairs;
  const auto p = there ? pair : of.pairs - 1;    // all threads of a warp take part in its sums
  const auto i = of.i[p], j = of.j[p];
  float d[3];
  for (int x = 0; x < 3; ++x) d[x] = static_cast<float>(of.vectors[3 * p + x]);
  const LongPair of_pair(of.atoms, of.constants, d[0] * d[0] + d[1] * d[1] + d[2] * d[2], i, j);
  const bool same = __all_sync(ALL, __shfl_sync(ALL, i, 0) == i);
  const double counts = there ? 1.0 : 0.0;
  double *phi = of.sums, *psi = phi + of.rows, *through_mean = psi + of.rows;
  add(psi, i, counts * of_pair.psi_i, same);
  add(psi, j, counts * of_pair.psi_j, false);
  add(through_mean, i, counts * of_pair.by_mean, same);
  add(through_mean, j, counts * of_pair.by_mean, false);
  if (of.constants.coulomb) {
    add(phi, i, counts * of_pair.phi_i, same);
    add(phi, j, counts * of_pair.phi_j, false);
  }
  if (!there) return;
  for (int x = 0; x < 3; ++x) of.gradients[3 * p + x] = d[x] * of_pair.by_vector;
}
