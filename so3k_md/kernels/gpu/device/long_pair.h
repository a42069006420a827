/* so3k-md: one long-range pair on a GPU. MIT. */

#ifndef SO3K_GPU_LONG_PAIR_H
#define SO3K_GPU_LONG_PAIR_H

#include "dispersion.h"
#include "long_range.h"

namespace So3k {

/// What a pair at a distance gives to the sums of its atoms, and the derivative of its energy.
struct LongPair {
  float phi_i, phi_j, psi_i, psi_j;    // to φ and ψ of each atom
  float by_mean;                       // ∂E/∂α through the mean, to both
  float by_vector;                     // ∂E/∂r / r

  /// square: of the distance, Å². The same bits follow for i and j the other way round.
  __device__ LongPair(const LongRangeAtoms &of, const LongRangeConstants &constants, float square,
                      long long i, long long j)
  {
    const float cutoff = static_cast<float>(constants.cutoff);
    const float on = static_cast<float>(constants.cutoff - constants.taper);
    float w = 1.0f, dw = 0.0f, e, by_r;
    // clamped to a smallest distance, which keeps atoms at the same position finite, and to the
    // cutoff, where everything is zero
    const float r = sqrtf(fminf(fmaxf(square, 1e-6f), cutoff * cutoff));
    if (r > on) switched(r, on, cutoff, w, dw);
    const float a_i = of.alpha[i], a_j = of.alpha[j];
    const Dispersion<float> dispersion(constants);
    dispersion(a_i, a_j, of.v[i] + of.v[j], r, w, dw, e, by_mean, by_r);
    psi_i = a_j * e;
    psi_j = a_i * e;
    phi_i = phi_j = 0.0f;
    if (constants.coulomb) {
      const float ke = static_cast<float>(constants.ke), q_i = of.charge[i], q_j = of.charge[j];
      float k = 0.0f, dk = 0.0f;
      const Shifted<float> shifted(cutoff);
      shifted(r, k, dk);
      phi_i = ke * q_j * k;
      phi_j = ke * q_i * k;
      by_r += ke * (q_i * q_j) * dk;
    }
    by_vector = by_r / r;
  }
};

}    // namespace So3k

#endif
