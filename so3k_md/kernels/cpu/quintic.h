/* so3k-md: functions of the distance read from tables of polynomials. MIT. */

#ifndef SO3K_QUINTIC_H
#define SO3K_QUINTIC_H

#include <algorithm>
#include <cstdint>

namespace So3k {

/// Polynomials of fifth degree, (intervals, 6, columns): Σ_k c_k t^k in intervals of one width.
template <typename T> struct Quintics {
  const T *table;
  T width;    // of an interval, Å
  int64_t intervals, columns;

  /// The interval of a distance, and the powers of t.
  struct Place {
    const T *c;
    T power[6], rise[6];    // t^k and its derivative by r
  };

  Place at(T r) const
  {
    const T x = r / width;
    const auto interval = std::min(static_cast<int64_t>(x), intervals - 1);
    Place place;
    place.c = table + interval * 6 * columns;
    place.power[0] = 1;
    place.rise[0] = 0;
    for (int k = 1; k < 6; ++k) {
      place.power[k] = place.power[k - 1] * (x - interval);
      place.rise[k] = k * place.power[k - 1] / width;
    }
    return place;
  }

  /// Adds the values of all columns to w.
  void add(T r, T *w) const
  {
    const auto p = at(r);
    const auto n = columns;
    const T *c = p.c;
#pragma omp simd
    for (int64_t f = 0; f < n; ++f)
      w[f] += p.power[0] * c[f] + p.power[1] * c[n + f] + p.power[2] * c[2 * n + f] +
          p.power[3] * c[3 * n + f] + p.power[4] * c[4 * n + f] + p.power[5] * c[5 * n + f];
  }

  /// Σ_f g_w,f ∂w_f/∂r.
  T derivative(T r, const T *g_w) const
  {
    const auto p = at(r);
    const auto n = columns;
    const T *c = p.c;
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t f = 0; f < n; ++f)
      sum += g_w[f] *
          (p.rise[1] * c[n + f] + p.rise[2] * c[2 * n + f] + p.rise[3] * c[3 * n + f] +
           p.rise[4] * c[4 * n + f] + p.rise[5] * c[5 * n + f]);
    return sum;
  }
};

}    // namespace So3k

#endif
