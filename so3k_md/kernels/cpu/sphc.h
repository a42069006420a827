/* so3k-md: neighborhoods in SPHC space within groups, and the tiles of pairs in them. MIT. */

#ifndef SO3K_SPHC_H
#define SO3K_SPHC_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "filter.h"
#include "quintic.h"

namespace So3k {

/// Input of the non-local messages of one layer.
template <typename T> struct Sphc {
  Invariants<T> invariants;
  int64_t width, hidden, orders, degrees;     // F, H, chi_width, number of degrees
  int64_t centres, members;                   // rows of centres, members of all groups
  const T *query, *key;                       // (centres, F), (sources, F)
  const T *chi;                               // (centres, orders)
  const T *chi_of;                            // (orders, members)
  const double *r, *r_src;                    // (centres, 3), (sources, 3), Å
  const int64_t *source;                      // of each member
  const int64_t *first, *size, *own;          // of each centre
  std::vector<int64_t> centre_of;             // of each member, or −1
  std::vector<int64_t> place_of;              // of each centre, among the members
  const T *into, *bias, *out, *transposed;    // (degrees, H), (H), (H, F), (F, H)
  const T *shift;                             // (F)
  Quintics<T> table;                          // what the radial part adds within the cutoff
  std::vector<int64_t> degree_of;             // of each order, its place among the degrees
  std::vector<T> sign;                        // of each order, (−1)^l
  int64_t p;
  T cutoff, temperature, kappa, direction;
};

/// φ(u) = 1 − (p+1)(p+2)/2 u^p + p(p+2) u^(p+1) − p(p+1)/2 u^(p+2) for u < 1, and its derivative.
template <typename T> struct Cutoff {
  T value, derivative;

  Cutoff(T u, int64_t p)
  {
    T power = 1;    // u^(p−1)
    for (int64_t n = 1; n < p; ++n) power *= u;
    const T a = T(0.5) * (p + 1) * (p + 2), b = T(p) * (p + 2), c = T(0.5) * p * (p + 1);
    value = 1 - power * u * (a - b * u + c * u * u);
    derivative = -power * (a * p - b * (p + 1) * u + c * (p + 2) * u * u);
  }
};

/// The distances d_ij / T of a centre to all members of its group, and their softmax. The memory is
/// that of one thread.
template <typename T> class Rows {
 public:
  /// `log_norm` of each centre, which `find_norm` sets.
  Rows(const Sphc<T> &sphc, T *log_norm) : sphc(sphc), log_norm(log_norm)
  {
    int64_t largest = 0;
    for (int64_t i = 0; i < sphc.centres; ++i) largest = std::max(largest, sphc.size[i]);
    square.resize(largest);
    d.resize(largest);
  }

  void find_norm(int64_t i)
  {
    const T *d = distances(i);
    T peak = -std::numeric_limits<T>::infinity(), sum = 0;
    for (int64_t p = 0; p < sphc.size[i]; ++p) peak = std::max(peak, d[p]);
    for (int64_t p = 0; p < sphc.size[i]; ++p) sum += std::exp(d[p] - peak);
    log_norm[i] = peak + std::log(sum * sphc.kappa / sphc.size[i]);
  }

  /// Distances of centre i to all members of its group; −∞ to itself, which excludes it.
  const T *distances(int64_t i)
  {
    const auto n = sphc.size[i], first = sphc.first[i];
    std::fill_n(square.begin(), n, T(0));
    for (int64_t m = 0; m < sphc.orders; ++m) {
      const T mine = sphc.chi[i * sphc.orders + m];
      const T *other = sphc.chi_of + m * sphc.members + first;
#pragma omp simd
      for (int64_t p = 0; p < n; ++p) square[p] += (mine - other[p]) * (mine - other[p]);
    }
    const T per = 1 / sphc.temperature;
#pragma omp simd
    for (int64_t p = 0; p < n; ++p)
      d[p] = (std::sqrt(square[p] + sphc.invariants.floor) - sphc.invariants.eps) * per;
    d[sphc.place_of[i] - first] = -std::numeric_limits<T>::infinity();
    return d.data();
  }

  /// u_ij = n s_ij / κ of a distance from centre i is exp(d_ij − norm(i)); neighbors have u < 1.
  T norm(int64_t i) const { return log_norm[i]; }

  /// Adds −G_i Σ_k s_ik ∂d_ik/∂χ, the derivative of the denominator of the softmax.
  ///
  /// `g`: G_i = Σ_j u_ij ∂E/∂u_ij; derivatives as `chi` and `chi_of`.
  void adjoint(int64_t i, T g, T *g_chi, T *g_chi_of)
  {
    const auto n = sphc.size[i], first = sphc.first[i];
    if (g == 0 || n < 2) return;
    const T *d = distances(i);
    const T scale = -g * sphc.kappa / (sphc.size[i] * sphc.temperature);
    auto &weight = square;
    for (int64_t p = 0; p < n; ++p)
      weight[p] =
          scale * std::exp(d[p] - log_norm[i]) / std::sqrt(square[p] + sphc.invariants.floor);
    for (int64_t m = 0; m < sphc.orders; ++m) {
      const T mine = sphc.chi[i * sphc.orders + m];
      const T *other = sphc.chi_of + m * sphc.members + first;
      T *g_other = g_chi_of + m * sphc.members + first;
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t p = 0; p < n; ++p) {
        const T derivative = weight[p] * (mine - other[p]);
        sum += derivative;
        g_other[p] -= derivative;
      }
      g_chi[i * sphc.orders + m] += sum;
    }
  }

 private:
  const Sphc<T> &sphc;
  T *log_norm;
  std::vector<T> square, d;
};

/// A pair in which one or both are neighbors of the other.
template <typename T> struct SphcPair {
  int64_t i, place, back;    // centre, member, and the centre that the member is, or −1
  T there, here;             // u_ij, and u_ji of the reverse pair; 1 if not neighbors
};

/// The pairs of every `step`-th centre from `begin` on, tile by tile; of all centres, each pair
/// once. Centres have fewer pairs the later they are, so that a part of the work is not a range of
/// them.
template <typename T, typename Work>
void each_tile(const Sphc<T> &sphc, Rows<T> &rows, int64_t begin, int64_t step, int64_t tile,
               Work work)
{
  std::vector<SphcPair<T>> pairs;
  pairs.reserve(tile);
  for (int64_t i = begin; i < sphc.centres; i += step) {
    const T *d = rows.distances(i);
    for (int64_t p = 0; p < sphc.size[i]; ++p) {
      const auto place = sphc.first[i] + p, back = sphc.centre_of[place];
      if (place == sphc.place_of[i] || (back >= 0 && back < i)) continue;
      const bool there = d[p] < rows.norm(i), here = back >= 0 && d[p] < rows.norm(back);
      if (!there && !here) continue;
      pairs.push_back({i, place, back, there ? std::exp(d[p] - rows.norm(i)) : T(1),
                       here ? std::exp(d[p] - rows.norm(back)) : T(1)});
      if (static_cast<int64_t>(pairs.size()) == tile) {
        work(pairs);
        pairs.clear();
      }
    }
  }
  if (!pairs.empty()) work(pairs);
}

}    // namespace So3k

#endif
