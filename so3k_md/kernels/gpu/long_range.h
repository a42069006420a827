/* so3k-md: the arguments of the kernel of `long_pairs`, as host and device see them. Include
 * dispersion.h first, which has its settings. MIT. */

#ifndef SO3K_GPU_LONG_RANGE_H
#define SO3K_GPU_LONG_RANGE_H

namespace So3k {

struct LongRangePairs {
  long long pairs, rows;
  const double *vectors;              // (pairs, 3), Å, each pair once
  const long long *i, *j;             // (pairs)
  const float *alpha, *v, *charge;    // of the atoms
  float *gradients;                   // (pairs, 3)
  double *sums;                       // φ, ψ, ∂E/∂α through the mean, (3, rows)
  LongRangeConstants constants;
};

}    // namespace So3k

#endif
