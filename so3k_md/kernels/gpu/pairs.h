/* so3k-md: the arguments of the kernels of `geometry`, as host and device see them. MIT. */

#ifndef SO3K_GPU_PAIRS_H
#define SO3K_GPU_PAIRS_H

namespace So3k {

struct Pairs {
  long long pairs;
  const double *vectors;    // (pairs, 3), r_j - r_i, Å
  const float
      *steps;    // matrices from degree l to l + 1, (2 l + 3, 3 (2 l + 1)), one after the other
  float direction;    // 1 or -1: sign of the direction of which harmonics are taken
  float *r, *ylm;     // (pairs), (pairs, orders)
  const float *g_r, *g_ylm;
  double *g_vectors;
};

}    // namespace So3k

#endif
