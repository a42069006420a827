/* so3k-md: the arguments of the kernels of `attend`, as host and device see them. MIT. */

#ifndef SO3K_GPU_NEAR_H
#define SO3K_GPU_NEAR_H

namespace So3k {

/// Rows of queries and keys have COLUMNS numbers, those of values FEATURES (device/shape.h). Pairs
/// are listed in both directions, those of a centre one after the other. The first `centres`
/// sources are the centres.
struct Near {
  long long centres, intervals;
  const long long *first, *j;    // (centres + 1), first pair of each centre; (pairs)
  const float *q, *k, *v;        // (centres, COLUMNS), (sources, COLUMNS), (sources, FEATURES)
  const float *chi, *chi_src;    // (centres, orders), (sources, orders)
  const float *r, *cut, *ylm;    // (pairs), (pairs), (pairs, orders)
  const void *out;               // last map of the filters, (COLUMNS / 8, INNER / 16, 32) fragments
  const void *out_transposed;    // (COLUMNS / 16, INNER / 8, 32) fragments
  const float *hidden;           // first map of both spherical filters, (degrees, 2 HIDDEN)
  const float *hidden_bias;      // (2 HIDDEN)
  const float *table;            // functions of the distance, (intervals, 6, RADIAL)
  float *dx, *dchi;              // (centres, FEATURES), (centres, orders)
  const float *g_dx, *g_dchi;    // derivatives by these
  float *g_q, *g_k, *g_v, *g_chi, *g_chi_src, *g_r, *g_cut, *g_ylm;
  float width;         // of an interval, Å
  float floor, eps;    // of the invariants: ε² + 1e-30, ε
};

}    // namespace So3k

#endif
