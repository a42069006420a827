/* so3k-md: spherical harmonics of one direction. MIT. */

#ifndef SO3K_GPU_HARMONICS_H
#define SO3K_GPU_HARMONICS_H

#include "degrees.h"

namespace So3k {

constexpr int LAST = Degrees::degree(Degrees::DEGREES - 1);
constexpr int ALL_ORDERS = (LAST + 1) * (LAST + 1);    // of the degrees 0 to LAST

/// Where the matrix from degree l to l + 1 begins.
inline __device__ constexpr int step(int l)
{
  int first = 0;
  for (int n = 0; n < l; ++n) first += (2 * n + 3) * 3 * (2 * n + 1);
  return first;
}

/// Where order m of degree number l stands among those of all degrees.
inline __device__ constexpr int of_all(int l, int m)
{
  return Degrees::degree(l) * Degrees::degree(l) + m;
}

/// Distance, direction and the harmonics of the degrees 0 to LAST of one vector. Degree l begins at
/// l².
struct Harmonics {
  const float *steps;
  float r, unit[3], y[ALL_ORDERS];

  /// `sign`: 1 or -1, of the direction of which the harmonics are taken.
  __device__ Harmonics(const float *steps, float sign, const float (&v)[3]) : steps(steps)
  {
    // a smallest distance keeps atoms at the same position finite
    r = sqrtf(fmaxf(v[0] * v[0] + v[1] * v[1] + v[2] * v[2], 1e-24f));
    for (int x = 0; x < 3; ++x) unit[x] = sign * v[x] / r;
    y[0] = 0.28209479177387814347f;    // 1 / √(4π)
#pragma unroll
    for (int l = 0; l < LAST; ++l)
#pragma unroll
      for (int above = 0; above < 2 * l + 3; ++above) {
        float sum = 0.0f;
#pragma unroll
        for (int m = 0; m < 2 * l + 1; ++m)
#pragma unroll
          for (int x = 0; x < 3; ++x) sum += element(l, above, m, x) * (y[l * l + m] * unit[x]);
        y[(l + 1) * (l + 1) + above] = sum;
      }
  }

  /// ∂E/∂vector from the derivatives by all harmonics, which it changes, and by the distance.
  __device__ void adjoint(float sign, float (&g)[ALL_ORDERS], float g_r, float (&g_vector)[3]) const
  {
    float g_unit[3] = {}, along = 0.0f;
#pragma unroll
    for (int l = LAST - 1; l >= 0; --l)
#pragma unroll
      for (int m = 0; m < 2 * l + 1; ++m)
#pragma unroll
        for (int x = 0; x < 3; ++x) {
          float by_product = 0.0f;
#pragma unroll
          for (int above = 0; above < 2 * l + 3; ++above)
            by_product += element(l, above, m, x) * g[(l + 1) * (l + 1) + above];
          g_unit[x] += by_product * y[l * l + m];
          g[l * l + m] += by_product * unit[x];
        }
    for (int x = 0; x < 3; ++x) along += unit[x] * g_unit[x];
    for (int x = 0; x < 3; ++x)
      g_vector[x] = sign * ((g_unit[x] - along * unit[x]) / r + g_r * unit[x]);
  }

 private:
  __device__ float element(int l, int above, int m, int x) const
  {
    return __ldg(steps + step(l) + (above * (2 * l + 1) + m) * 3 + x);
  }
};

}    // namespace So3k

#endif
