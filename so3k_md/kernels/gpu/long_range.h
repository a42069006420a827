/* so3k-md: the arguments of the kernels of `long_pairs`, as host and device see them. Include
 * dispersion.h first, which has its settings. MIT. */

#ifndef SO3K_GPU_LONG_RANGE_H
#define SO3K_GPU_LONG_RANGE_H

namespace So3k {

/// Polarizabilities, v of the free atoms and charges.
struct LongRangeAtoms {
  const float *alpha, *v, *charge;
};

struct LongRangePairs {
  long long pairs, rows;
  const double *vectors;     // (pairs, 3), Å, each pair once
  const long long *i, *j;    // (pairs)
  LongRangeAtoms atoms;
  float *gradients;    // (pairs, 3)
  double *sums;        // φ, ψ, ∂E/∂α through the mean, (3, rows)
  LongRangeConstants constants;
};

/// Pairs in rows: all neighbors of each centre, which are the first sources.
struct LongRangeRows {
  long long centres, sources, width;
  const double *places;     // (sources + 3, 3), Å: positions, and the lattice vectors
  const int *length;        // (centres)
  const long long *rows;    // (centres, width), see device/entry.h
  LongRangeAtoms atoms;
  double *gradients;    // by the positions of the centres, (centres, 3)
  double *outer;        // Σ (r_j - r_i) ⊗ ∂E/∂(r_j - r_i) / 2 of each centre, (centres, 3, 3)
  double *sums;         // as of LongRangePairs, (3, sources)
  LongRangeConstants constants;
};

}    // namespace So3k

#endif
