/* so3k-md: dispersion and shifted electrostatics of pairs, a thread for each pair. MIT. */

#include "dispersion.h"
#include "long_range.h"
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
  const float cutoff = static_cast<float>(of.constants.cutoff);
  const float on = static_cast<float>(of.constants.cutoff - of.constants.taper);
  float d[3], w = 1.0f, dw = 0.0f, e, by_mean, by_r;
  for (int x = 0; x < 3; ++x) d[x] = static_cast<float>(of.vectors[3 * p + x]);
  // clamped to a smallest distance, which keeps atoms at the same position finite, and to the
  // cutoff, where everything is zero
  const float square = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
  const float r = sqrtf(fminf(fmaxf(square, 1e-6f), cutoff * cutoff));
  if (r > on) switched(r, on, cutoff, w, dw);
  const float a_i = of.alpha[i], a_j = of.alpha[j];
  const Dispersion<float> dispersion(of.constants);
  dispersion(a_i, a_j, of.v[i] + of.v[j], r, w, dw, e, by_mean, by_r);
  float k = 0.0f, dk = 0.0f;
  const float ke = static_cast<float>(of.constants.ke), q_i = of.charge[i], q_j = of.charge[j];
  const Shifted<float> shifted(cutoff);
  if (of.constants.coulomb) shifted(r, k, dk);
  const bool same = __all_sync(ALL, __shfl_sync(ALL, i, 0) == i);
  const double counts = there ? 1.0 : 0.0;
  double *phi = of.sums, *psi = phi + of.rows, *through_mean = psi + of.rows;
  add(psi, i, counts * (a_j * e), same);
  add(psi, j, counts * (a_i * e), false);
  add(through_mean, i, counts * by_mean, same);
  add(through_mean, j, counts * by_mean, false);
  if (of.constants.coulomb) {
    add(phi, i, counts * (ke * q_j * k), same);
    add(phi, j, counts * (ke * q_i * k), false);
    by_r += ke * q_i * q_j * dk;
  }
  if (!there) return;
  for (int x = 0; x < 3; ++x) of.gradients[3 * p + x] = d[x] * (by_r / r);
}
