/* so3k-md: cutoff functions of pairs; the equations are those of so3k_md/nn/radial.py. MIT. */

#ifndef SO3K_CUTOFF_H
#define SO3K_CUTOFF_H

#include <cmath>
#include <cstdint>

#include "dual.h"

namespace So3k {

/// φ(r) and φ′(r) of a number or a dual number, zero from the cutoff on.
template <typename T> struct Cutoff {
  T cutoff;
  int64_t p;    // of the polynomial; 0 for the cosine

  template <typename N> void operator()(N r, N &value, N &derivative) const
  {
    value = derivative = N{};
    if (!(So3k::value(r) < cutoff)) return;
    if (p == 0) {
      const T per = T(3.14159265358979323846) / cutoff;
      value = T(0.5) * cos(r * per) + T(0.5);
      derivative = T(-0.5) * per * sin(r * per);
      return;
    }
    const N u = r / cutoff;
    const T n = static_cast<T>(p), a = T(0.5) * (n + 1) * (n + 2);
    const T b = n * (n + 2), c = T(0.5) * n * (n + 1);
    N power = u;    // u^(p − 1)
    for (int64_t k = 2; k < p; ++k) power = power * u;
    value = T(1) - power * u * (a - b * u + c * u * u);
    derivative = -power * (a * n - b * (n + 1) * u + c * (n + 2) * u * u) / cutoff;
  }
};

}    // namespace So3k

#endif
