/* so3k-md: the message of one atom to another, and its adjoint. MIT. */

#ifndef SO3K_PAIRS_H
#define SO3K_PAIRS_H

#include <algorithm>
#include <cstdint>
#include <vector>

namespace So3k {

/// What both directions of a run of pairs read.
template <typename T> struct Layer {
  int64_t width, heads, orders,
      hidden;                // F, h, chi_width, H of each of the two filters
  const T *q, *k, *v;        // (centres, 2F), (sources, 2F), (sources, F)
  const T *r, *cut, *ylm;    // (pairs), (pairs), (pairs, orders)
  const T *s, *weight;       // (pairs, 2H), (2, H, F)
  const T *table;            // (knots, 2, 2F): value and slope times spacing of the filters
  T spacing;
  int64_t knots;
  const int64_t *i, *j;
  const bool *back;
  std::vector<int64_t> degree_of;    // of each order, its place among the degrees
  std::vector<T> sign;               // of each order, (−1)^l
  int64_t degrees;
};

/// Cubic Hermite weights of two neighbouring knots, and their derivatives by r.
template <typename T> struct Hermite {
  int64_t knot;
  T value[4], slope[4];    // of f_0, f'_0, f_1, f'_1

  Hermite(T r, T spacing, int64_t knots)
  {
    const T x = r / spacing;
    knot = std::min(static_cast<int64_t>(x), knots - 2);
    const T t = x - knot, s = 1 - t, per = 1 / spacing;
    value[0] = (1 + 2 * t) * s * s;
    value[1] = t * s * s;
    value[2] = t * t * (3 - 2 * t);
    value[3] = -t * t * s;
    slope[0] = -6 * t * s * per;
    slope[1] = s * (1 - 3 * t) * per;
    slope[2] = 6 * t * s * per;
    slope[3] = t * (3 * t - 2) * per;
  }

  /// Adds the cubic of each of n columns.
  void add(const T *table, int64_t n, T *w) const
  {
    const T *a = table + knot * 2 * n, *b = a + n, *c = b + n, *d = c + n;
#pragma omp simd
    for (int64_t f = 0; f < n; ++f)
      w[f] += value[0] * a[f] + value[1] * b[f] + value[2] * c[f] + value[3] * d[f];
  }

  /// Σ_f g_w,f ∂w_f/∂r.
  T slope_of(const T *table, int64_t n, const T *g_w) const
  {
    const T *a = table + knot * 2 * n, *b = a + n, *c = b + n, *d = c + n;
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t f = 0; f < n; ++f)
      sum += g_w[f] * (slope[0] * a[f] + slope[1] * b[f] + slope[2] * c[f] + slope[3] * d[f]);
    return sum;
  }
};

/// Σ_f a_f b_f c_f of each chunk of a head.
template <typename T>
void products(const T *a, const T *b, const T *c, int64_t heads, int64_t width, T *result)
{
  for (int64_t h = 0; h < heads; ++h) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t f = h * width; f < (h + 1) * width; ++f) sum += a[f] * b[f] * c[f];
    result[h] = sum;
  }
}

constexpr int64_t MAX_HEADS = 64;

/// The message of one source to one centre; `turn` is true where the direction
/// is that of the other atom.
template <typename T>
void send(const Layer<T> &layer, int64_t pair, int64_t centre, int64_t source, bool turn,
          const T *w, T *dx, T *dchi)
{
  const int64_t F = layer.width, n = layer.degrees;
  T alpha[MAX_HEADS], beta[MAX_HEADS];
  const T *q = layer.q + centre * 2 * F, *k = layer.k + source * 2 * F, *v = layer.v + source * F;
  products(q, w, k, layer.heads, F / layer.heads, alpha);
  products(q + F, w + F, k + F, n, F / n, beta);
  const T cut = layer.cut[pair];
  T *x = dx + centre * F, *chi = dchi + centre * layer.orders;
  for (int64_t h = 0; h < layer.heads; ++h) {
    const T weight = cut * alpha[h];
#pragma omp simd
    for (int64_t f = h * (F / layer.heads); f < (h + 1) * (F / layer.heads); ++f)
      x[f] += weight * v[f];
  }
  const T *ylm = layer.ylm + pair * layer.orders;
  for (int64_t m = 0; m < layer.orders; ++m)
    chi[m] += cut * beta[layer.degree_of[m]] * (turn ? layer.sign[m] : T(1)) * ylm[m];
}

/// Where the adjoint of a run of pairs adds up.
template <typename T> struct Slopes {
  T *q, *k, *v;          // as in Layer
  T *cut, *ylm;          // of the pairs
  const T *dx, *dchi;    // of the messages
};

/// The adjoint of `send`; adds to the slope of the filter, g_w.
template <typename T>
void send_back(const Layer<T> &layer, int64_t pair, int64_t centre, int64_t source, bool turn,
               const T *w, T *g_w, const Slopes<T> &g)
{
  const int64_t F = layer.width, n = layer.degrees, wide = F / layer.heads, narrow = F / n;
  T alpha[MAX_HEADS], beta[MAX_HEADS], g_alpha[MAX_HEADS], g_beta[MAX_HEADS];
  const T *q = layer.q + centre * 2 * F, *k = layer.k + source * 2 * F, *v = layer.v + source * F;
  const T *g_x = g.dx + centre * F, *g_chi = g.dchi + centre * layer.orders;
  const T *ylm = layer.ylm + pair * layer.orders;
  const T cut = layer.cut[pair];
  products(q, w, k, layer.heads, wide, alpha);
  products(q + F, w + F, k + F, n, narrow, beta);
  std::fill(g_beta, g_beta + n, T(0));
  T *g_ylm = g.ylm + pair * layer.orders;
  for (int64_t m = 0; m < layer.orders; ++m) {
    const T slope = (turn ? layer.sign[m] : T(1)) * g_chi[m];
    g_beta[layer.degree_of[m]] += slope * ylm[m];
    g_ylm[m] += cut * beta[layer.degree_of[m]] * slope;
  }
  T *g_q = g.q + centre * 2 * F, *g_k = g.k + source * 2 * F, *g_v = g.v + source * F;
  T g_cut = 0;
  for (int64_t h = 0; h < layer.heads; ++h) {
    const T weight = cut * alpha[h];
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t f = h * wide; f < (h + 1) * wide; ++f) {
      sum += g_x[f] * v[f];
      g_v[f] += weight * g_x[f];
    }
    g_cut += alpha[h] * sum;
    g_alpha[h] = cut * sum;
  }
  for (int64_t l = 0; l < n; ++l) {
    g_cut += beta[l] * g_beta[l];
    g_beta[l] *= cut;
  }
  g.cut[pair] += g_cut;
  const auto chunk = [&](int64_t first, int64_t last, T slope) {
#pragma omp simd
    for (int64_t f = first; f < last; ++f) {
      g_q[f] += slope * w[f] * k[f];
      g_k[f] += slope * w[f] * q[f];
      g_w[f] += slope * q[f] * k[f];
    }
  };
  for (int64_t h = 0; h < layer.heads; ++h) chunk(h * wide, (h + 1) * wide, g_alpha[h]);
  for (int64_t l = 0; l < n; ++l) chunk(F + l * narrow, F + (l + 1) * narrow, g_beta[l]);
}

}    // namespace So3k

#endif
