/* so3k-md: dispersion and shifted electrostatics of one pair, for CPUs and GPUs; the equations are
 * those of so3k_md/physics. MIT. */

#ifndef SO3K_DISPERSION_H
#define SO3K_DISPERSION_H

#include "switching.h"

#ifndef __CUDACC_RTC__
#include <cstring>
#endif

namespace So3k {

/// Settings of the long-range pairs.
struct LongRangeConstants {
  double cutoff, taper, ke, bohr, hartree;
  bool coulomb;
};

/// a^(−1/7) by Newton's method from the exponent of a, which has no branch and fills registers.
template <typename T> SO3K_EVERYWHERE T inverse_root7(T a)
{
  const float single = static_cast<float>(a);
  int bits;
  memcpy(&bits, &single, sizeof(bits));
  // the exponent of y is −1/7 of that of a; the constant makes the largest error least
  bits = 1217086532 - static_cast<int>(static_cast<float>(bits) * (1.0f / 7.0f));
  float guess;
  memcpy(&guess, &bits, sizeof(guess));
  T y = guess;
  constexpr int STEPS = sizeof(T) == 4 ? 3 : 5;    // errors 3e-2, 4e-3, 6e-5, 2e-8, 1e-15
  for (int n = 0; n < STEPS; ++n) {
    const T y2 = y * y, y4 = y2 * y2;
    y *= (T(8) - a * (y4 * y2 * y)) * T(1.0 / 7.0);
  }
  return y;
}

/// K(r) and K′(r); see physics/coulomb.py.
template <typename T> struct Shifted {
  static constexpr double SIGMA = 4.0;    // Å
  T cutoff, value, derivative;            // V and V′ at the cutoff

  explicit SO3K_EVERYWHERE Shifted(T cutoff) : cutoff(cutoff) { bare(cutoff, value, derivative); }

  static SO3K_EVERYWHERE void bare(T r, T &v, T &dv)
  {
    const T u = r * T(1 / SIGMA);
    v = erf(u) / r;
    dv = (exp(-u * u) * T(2 / (1.7724538509055160273 * SIGMA)) - v) / r;
  }

  SO3K_EVERYWHERE void operator()(T r, T &k, T &dk) const
  {
    T v, dv, f = 1, df = 0;
    bare(r, v, dv);
    const T on = T(0.45) * cutoff;
    if (r > on) switched(r, on, cutoff, f, df);
    const T ramp = (1 - f) * derivative, beyond = r - cutoff;
    k = v - value - ramp * beyond;
    dk = dv - ramp + df * beyond * derivative;
  }
};

/// The dispersion of a pair, see physics/dispersion.py.
template <typename T> struct Dispersion {
  T per_bohr2, energy, b0, b1, b2, b3;

  explicit SO3K_EVERYWHERE Dispersion(const LongRangeConstants &of)
  {
    constexpr double RADIUS = 2.5527961000248887;    // α^(−4/21), α the fine-structure constant
    constexpr double SCALE = 1.0 / 6.096;
    per_bohr2 = static_cast<T>(1 / (of.bohr * of.bohr));
    energy = static_cast<T>(-2 * of.hartree);
    b0 = static_cast<T>(-0.00433008 * SCALE);
    b1 = static_cast<T>(0.24428889 * SCALE * RADIUS);
    b2 = static_cast<T>(0.04125273 * SCALE * RADIUS * RADIUS);
    b3 = static_cast<T>(-0.00078893 * SCALE * RADIUS * RADIUS * RADIUS);
  }

  /// e = E / (α_i α_j), ∂E/∂α of either atom through the mean, and ∂E/∂r.
  ///
  /// v: sum of v of both atoms; w, dw: switching function and its derivative.
  SO3K_EVERYWHERE void operator()(T a_i, T a_j, T v, T r, T w, T dw, T &e, T &by_mean,
                                  T &by_r) const
  {
    const T total = a_i + a_j, root = inverse_root7(T(0.5) * total);
    const T x = 1 / root, cubic = b3 * x, lowest = b0 * root;
    const T ratio = (cubic + b2) * x + (lowest + b1), by_ratio = (2 * cubic + b2) * x - lowest;
    const T k4 = 10 * ratio * ratio, inverse = T(1.0 / (6.096 * 6.096)) * root * root;
    const T t = r * r * per_bohr2 * inverse, t2 = t * t, t3 = t2 * t, t4 = t2 * t2;
    const T t5 = t4 * t, p6 = inverse * inverse * inverse;
    const T u3 = 1 / (1 + t3), u4 = 1 / (1 + t4), u5 = 1 / (1 + t5);
    const T g4 = k4 * u4, k4_u5 = k4 * u5, g5 = T(1.225) * k4 * k4_u5, sum = u3 + g4 + g5;
    const T by_t = 3 * (u3 * u3 * t3) + 4 * (g4 * u4 * t4) + 5 * (g5 * u5 * t5);
    const T by_k = 20 * (ratio * by_ratio) * (u4 + T(2.45) * k4_u5);
    const T c = energy / v, tapered = c * w, product = a_i * a_j;
    e = tapered * p6 * sum;
    by_mean = product * tapered * (p6 * T(1.0 / 7.0)) * (by_k + 2 * by_t - 6 * sum) / total;
    by_r = product * p6 * (c * dw * sum - 2 * tapered * by_t / r);
  }
};

}    // namespace So3k

#endif
