/* so3k-md: rows and filters of attention, as host and device see them. MIT. */

#ifndef SO3K_GPU_ATTENTION_H
#define SO3K_GPU_ATTENTION_H

namespace So3k {

/// Rows of queries and keys have COLUMNS numbers, those of values FEATURES (device/shape.h).
struct AttentionRows {
  long long centres;
  const float *q, *k, *v;        // (centres, COLUMNS), (sources, COLUMNS), (sources, FEATURES)
  const float *chi, *chi_src;    // (centres, orders), (sources, orders)
  const float *g_dx,
      *g_dchi;    // derivatives by the messages, (centres, FEATURES), (centres, orders)
  float *g_q, *g_k, *g_v, *g_chi, *g_chi_src;
};

/// The filters of pairs: products of a hidden row, and of functions of the distance, with a matrix.
struct Filters {
  const void *out;               // (COLUMNS / 8, INNER / 16, 32) fragments
  const void *out_transposed;    // (COLUMNS / 16, INNER / 8, 32) fragments
  const float *hidden;           // of the invariants, (degrees, PARTS HIDDEN)
  const float *hidden_bias;      // (PARTS HIDDEN)
  const float *table;            // functions of the distance, (intervals + 1, 6, RADIAL)
  long long intervals;           // up to the cutoff; the last row of the table holds beyond it
  float width;                   // of an interval, Å
  float floor, eps;              // of the invariants: ε² + 1e-30, ε
};

}    // namespace So3k

#endif
