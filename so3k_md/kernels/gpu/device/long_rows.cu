/* so3k-md: dispersion and shifted electrostatics of pairs in rows, a warp for each centre. MIT.
 *
 * A centre adds up all of its neighbors in the order of its row, so that no sum is shared. */

#include "entry.h"
#include "long_pair.h"
#include "warp.h"

namespace So3k {

inline __device__ double over_warp(double value)
{
  for (int mask = 1; mask < 32; mask *= 2) value += __shfl_xor_sync(ALL, value, mask);
  return value;
}

}    // namespace So3k

extern "C" __global__ void __launch_bounds__(32 * So3k::WARPS)
    long_rows(const So3k::LongRangeRows of)
{
  using namespace So3k;
  const Lane me;
  const auto i = centre_of(me);
  if (i >= of.centres) return;
  const float cutoff = static_cast<float>(of.constants.cutoff);
  const double *cell = of.places + 3 * of.sources;
  const int length = min(of.length[i], static_cast<int>(of.width));
  double sums[3] = {}, gradient[3] = {}, outer[6] = {};
  for (int k = me.lane; k < length; k += 32) {
    const Entry entry(of.rows[i * of.width + k]);
    double exact[3];
    between(of.places + 3 * i, of.places + 3 * entry.source, entry.image, cell, exact);
    float d[3];
    for (int x = 0; x < 3; ++x) d[x] = static_cast<float>(exact[x]);
    const float square = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
    if (square >= cutoff * cutoff) continue;
    const LongPair pair(of.atoms, of.constants, square, i, entry.source);
    sums[0] += pair.phi_i;
    sums[1] += pair.psi_i;
    sums[2] += pair.by_mean;
    for (int x = 0, n = 0; x < 3; ++x) {
      const double g = d[x] * pair.by_vector;
      gradient[x] -= g;
      for (int y = 0; y <= x; ++y)
        outer[n++] += 0.5 * d[y] * g;    // the other atom has the other half
    }
  }
  for (double &sum : sums) sum = over_warp(sum);
  for (double &component : gradient) component = over_warp(component);
  for (double &element : outer) element = over_warp(element);
  if (me.lane > 0) return;
  for (int n = 0; n < 3; ++n) of.sums[n * of.sources + i] = sums[n];
  for (int x = 0; x < 3; ++x) of.gradients[3 * i + x] = gradient[x];
  for (int x = 0, n = 0; x < 3; ++x)
    for (int y = 0; y <= x; ++y, ++n)
      of.outer[9 * i + 3 * x + y] = of.outer[9 * i + 3 * y + x] = outer[n];
}
