/* so3k-md: the arguments of the kernels of `sphc_attend`, as host and device see them. MIT. */

#ifndef SO3K_GPU_GROUPS_H
#define SO3K_GPU_GROUPS_H

#include "attention.h"

namespace So3k {

struct Groups {
  AttentionRows rows;
  Filters filters;
  long long members;                // of all groups
  const long long *source;          // row of each member, (members)
  const long long *centre_of;       // centre that a member is, or -1, (members)
  const long long *first, *size;    // of the group of each centre, among the members
  const long long *place_of;        // of each centre, among the members
  const float *chi_of;              // of the members, (orders, members)
  const double *r, *r_src;          // (centres, 3), (sources, 3), Å
  const float *steps;               // of the harmonics, see pairs.h
  float *log_norm;                  // of the softmax of each centre
  float *dchi;
  float *by_norm;    // derivatives by log_norm
  double *g_r, *g_r_src;
  float temperature, kappa, direction;
  int p;    // of the cutoff function
};

}    // namespace So3k

#endif
