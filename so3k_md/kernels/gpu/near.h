/* so3k-md: the arguments of the kernels of `attend`, as host and device see them. MIT. */

#ifndef SO3K_GPU_NEAR_H
#define SO3K_GPU_NEAR_H

#include "attention.h"

namespace So3k {

/// Pairs are listed in both directions, those of a centre one after the other. The first sources
/// are the centres.
struct Near {
  AttentionRows rows;
  Filters filters;
  const long long *first, *j;    // (centres + 1), first pair of each centre; (pairs)
  const float *r, *cut, *ylm;    // (pairs), (pairs), (pairs, orders)
  float *dx, *dchi;              // (centres, FEATURES), (centres, orders)
  float *g_r, *g_cut, *g_ylm;
};

}    // namespace So3k

#endif
