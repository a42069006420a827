/* so3k-md: the message of one atom to another, and its adjoint. MIT. */

#ifndef SO3K_PAIRS_H
#define SO3K_PAIRS_H

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lanes.h"
#include "quintic.h"

namespace So3k {

/// Input of both directions of the pairs.
template <typename T> struct Layer {
  int64_t width, heads, orders, degrees;    // F, h, chi_width, number of degrees
  const T *q, *k, *v;                       // (centres, 2F), (sources, 2F), (sources, F)
  const T *chi, *chi_src;                   // (centres, orders), (sources, orders)
  const T *r, *cut, *ylm;                   // (pairs), (pairs), (pairs, orders)
  Quintics<T> table;                        // of the radial part of the filters, 2F columns
  const int64_t *i, *j;
  const bool *back;
  std::vector<int64_t> order;    // where the orders of each degree begin, and the end
  std::vector<T> sign;           // of each degree, (−1)^l
};

constexpr int64_t MAX_HEADS = 64;

/// Σ_f a_f b_f c_f of each chunk of a head.
template <typename T>
void products(const T *a, const T *b, const T *c, int64_t heads, int64_t width, T *result)
{
  for (int64_t h = 0; h < heads; ++h) {
    Sum<T> sum;
    each<T>(h * width, (h + 1) * width, [&](int64_t f, auto number) {
      using V = decltype(number);
      sum += as<V>(a + f) * as<V>(b + f) * as<V>(c + f);
    });
    result[h] = sum.total();
  }
}

/// The rows of one direction of a pair.
template <typename T> struct Message {
  const T *q, *k, *v;

  Message(const Layer<T> &layer, int64_t centre, int64_t source) :
      q(layer.q + centre * 2 * layer.width), k(layer.k + source * 2 * layer.width),
      v(layer.v + source * layer.width)
  {
  }
};

/// Σ_f q_f w_f k_f over some features, in both directions.
template <typename T, bool BOTH>
inline void attention(const Message<T> &direct, const Message<T> &back, const T *w, int64_t first,
                      int64_t last, T &alpha, T &alpha_back)
{
  Sum<T> sum, sum_back;
  each<T>(
      first, last,
      [&, q = direct.q, k = direct.k, q_back = back.q, k_back = back.k](int64_t f, auto number) {
        using V = decltype(number);
        const V w_f = as<V>(w + f);
        sum += as<V>(q + f) * w_f * as<V>(k + f);
        if constexpr (BOTH) sum_back += as<V>(q_back + f) * w_f * as<V>(k_back + f);
      });
  alpha = sum.total();
  if constexpr (BOTH) alpha_back = sum_back.total();
}

/// The messages of a pair in one or both directions.
template <typename T, bool BOTH>
void send(const Layer<T> &layer, int64_t pair, const T *w, T *dx, T *dchi)
{
  const auto F = layer.width, i = layer.i[pair], j = BOTH ? layer.j[pair] : i;
  const Message<T> direct(layer, i, layer.j[pair]), back(layer, j, i);
  const T cut = layer.cut[pair];
  const auto wide = F / layer.heads, narrow = F / layer.degrees;
  T alpha, alpha_back = 0;
  for (int64_t h = 0; h < layer.heads; ++h) {
    attention<T, BOTH>(direct, back, w, h * wide, (h + 1) * wide, alpha, alpha_back);
    alpha *= cut;
    alpha_back *= cut;
    each<T>(h * wide, (h + 1) * wide,
            [&, x = dx + i * F, x_back = dx + j * F, v = direct.v, v_back = back.v](int64_t f,
                                                                                    auto number) {
              using V = decltype(number);
              as<V>(x + f) += alpha * as<V>(v + f);
              if constexpr (BOTH) as<V>(x_back + f) += alpha_back * as<V>(v_back + f);
            });
  }
  const T *ylm = layer.ylm + pair * layer.orders;
  T *chi = dchi + i * layer.orders, *chi_back = dchi + j * layer.orders;
  for (int64_t l = 0; l < layer.degrees; ++l) {
    attention<T, BOTH>(direct, back, w, F + l * narrow, F + (l + 1) * narrow, alpha, alpha_back);
    alpha *= cut;
    alpha_back *= cut * layer.sign[l];
    for (auto m = layer.order[l]; m < layer.order[l + 1]; ++m) {
      chi[m] += alpha * ylm[m];
      if constexpr (BOTH) chi_back[m] += alpha_back * ylm[m];
    }
  }
}

/// The derivatives to which the adjoint of the pairs adds.
template <typename T> struct LayerGradient {
  T *q, *k, *v;          // as in Layer
  T *cut, *ylm;          // of the pairs
  const T *dx, *dchi;    // of the messages
};

/// Rows of the derivatives of one direction of a pair.
template <typename T> struct MessageGradient {
  T *q, *k, *v;
  const T *dx, *dchi;

  MessageGradient(const Layer<T> &layer, const LayerGradient<T> &g, int64_t centre,
                  int64_t source) :
      q(g.q + centre * 2 * layer.width), k(g.k + source * 2 * layer.width),
      v(g.v + source * layer.width), dx(g.dx + centre * layer.width),
      dchi(g.dchi + centre * layer.orders)
  {
  }
};

/// The adjoint of `attention`, given the derivatives of its sums.
template <typename T, bool BOTH>
inline void attention_back(const Message<T> &direct, const Message<T> &back, const T *w,
                           int64_t first, int64_t last, T g_alpha, T g_alpha_back,
                           const MessageGradient<T> &g, const MessageGradient<T> &g_back, T *g_w)
{
  each<T>(first, last,
          [=, q = direct.q, k = direct.k, q_back = back.q, k_back = back.k, g_q = g.q, g_k = g.k,
           g_q_back = g_back.q, g_k_back = g_back.k](int64_t f, auto number) {
            using V = decltype(number);
            const V w_f = as<V>(w + f), sq = g_alpha * as<V>(q + f), k_f = as<V>(k + f);
            V sum = sq * k_f;
            as<V>(g_q + f) += w_f * (g_alpha * k_f);
            as<V>(g_k + f) += w_f * sq;
            if constexpr (BOTH) {
              const V sq_back = g_alpha_back * as<V>(q_back + f), k_f_back = as<V>(k_back + f);
              sum += sq_back * k_f_back;
              as<V>(g_q_back + f) += w_f * (g_alpha_back * k_f_back);
              as<V>(g_k_back + f) += w_f * sq_back;
            }
            as<V>(g_w + f) = sum;
          });
}

/// The adjoint of `send`; g_w is the derivative by the filter.
template <typename T, bool BOTH>
void send_back(const Layer<T> &layer, int64_t pair, const T *w, T *g_w,
               const LayerGradient<T> &gradient)
{
  const auto F = layer.width, i = layer.i[pair], j = BOTH ? layer.j[pair] : i;
  const Message<T> direct(layer, i, layer.j[pair]), back(layer, j, i);
  const MessageGradient<T> g(layer, gradient, i, layer.j[pair]), g_back(layer, gradient, j, i);
  const T cut = layer.cut[pair];
  const auto wide = F / layer.heads, narrow = F / layer.degrees;
  T alpha, alpha_back = 0, g_cut = 0;
  for (int64_t h = 0; h < layer.heads; ++h) {
    const auto first = h * wide, last = (h + 1) * wide;
    attention<T, BOTH>(direct, back, w, first, last, alpha, alpha_back);
    Sum<T> sum, sum_back;
    each<T>(first, last,
            [&, v = direct.v, v_back = back.v, dx = g.dx, dx_back = g_back.dx, g_v = g.v,
             g_v_back = g_back.v](int64_t f, auto number) {
              using V = decltype(number);
              const V x = as<V>(dx + f);
              sum += x * as<V>(v + f);
              as<V>(g_v + f) += (cut * alpha) * x;
              if constexpr (BOTH) {
                const V x_back = as<V>(dx_back + f);
                sum_back += x_back * as<V>(v_back + f);
                as<V>(g_v_back + f) += (cut * alpha_back) * x_back;
              }
            });
    const T g_alpha = sum.total(), g_alpha_back = BOTH ? sum_back.total() : T(0);
    g_cut += alpha * g_alpha + alpha_back * g_alpha_back;
    attention_back<T, BOTH>(direct, back, w, first, last, cut * g_alpha, cut * g_alpha_back, g,
                            g_back, g_w);
  }
  const T *ylm = layer.ylm + pair * layer.orders;
  T *g_ylm = gradient.ylm + pair * layer.orders;
  for (int64_t l = 0; l < layer.degrees; ++l) {
    const auto first = F + l * narrow, last = F + (l + 1) * narrow;
    attention<T, BOTH>(direct, back, w, first, last, alpha, alpha_back);
    T g_alpha = 0, g_alpha_back = 0;
    for (auto m = layer.order[l]; m < layer.order[l + 1]; ++m) {
      g_alpha += g.dchi[m] * ylm[m];
      g_ylm[m] = cut * alpha * g.dchi[m];
      if constexpr (BOTH) {
        g_alpha_back += layer.sign[l] * g_back.dchi[m] * ylm[m];
        g_ylm[m] += cut * alpha_back * layer.sign[l] * g_back.dchi[m];
      }
    }
    g_cut += alpha * g_alpha + alpha_back * g_alpha_back;
    attention_back<T, BOTH>(direct, back, w, first, last, cut * g_alpha, cut * g_alpha_back, g,
                            g_back, g_w);
  }
  gradient.cut[pair] = g_cut;
}

}    // namespace So3k

#endif
