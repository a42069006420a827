/* so3k-md: distances and harmonics of pairs and their adjoint, a thread for each pair. MIT. */

#include "harmonics.h"
#include "pairs.h"

namespace So3k {

constexpr int THREADS = 128;    // of a block

inline __device__ long long pair_of_thread()
{
  return static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x;
}

inline __device__ Harmonics harmonics_of(const Pairs &of, long long p)
{
  float v[3];
  for (int x = 0; x < 3; ++x) v[x] = static_cast<float>(of.vectors[3 * p + x]);
  return Harmonics(of.steps, of.direction, v);
}

}    // namespace So3k

extern "C" __global__ void __launch_bounds__(So3k::THREADS) geometry_forward(const So3k::Pairs of)
{
  using namespace So3k;
  const auto p = pair_of_thread();
  if (p >= of.pairs) return;
  const auto harmonics = harmonics_of(of, p);
  of.r[p] = harmonics.r;
#pragma unroll
  for (int l = 0; l < Degrees::DEGREES; ++l)
#pragma unroll
    for (int m = 0; m < 2 * Degrees::degree(l) + 1; ++m)
      of.ylm[p * ORDERS + Degrees::order(l) + m] = harmonics.y[of_all(l, m)];
}

extern "C" __global__ void __launch_bounds__(So3k::THREADS) geometry_backward(const So3k::Pairs of)
{
  using namespace So3k;
  const auto p = pair_of_thread();
  if (p >= of.pairs) return;
  float g[ALL_ORDERS] = {}, g_vector[3];
#pragma unroll
  for (int l = 0; l < Degrees::DEGREES; ++l)
#pragma unroll
    for (int m = 0; m < 2 * Degrees::degree(l) + 1; ++m)
      g[of_all(l, m)] = of.g_ylm[p * ORDERS + Degrees::order(l) + m];
  harmonics_of(of, p).adjoint(of.direction, g, of.g_r[p], g_vector);
  for (int x = 0; x < 3; ++x) of.g_vectors[3 * p + x] = g_vector[x];
}
