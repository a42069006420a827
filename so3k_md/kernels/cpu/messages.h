/* so3k-md: the messages of a pair in both directions, and their adjoint, in numbers or dual
 * numbers. MIT. */

#ifndef SO3K_MESSAGES_H
#define SO3K_MESSAGES_H

#include <cstdint>
#include <vector>

#include "dual.h"

namespace So3k {

/// Shape of a layer, and the factors of its products of queries and keys.
struct LayerShape {
  int64_t width, heads;    // F, h
  std::vector<int64_t> degrees;
  std::vector<int64_t> order;    // where the components of each degree begin, and the end
  double scale, chi_scale;

  int64_t orders() const { return order.back(); }
  int64_t n_degrees() const { return static_cast<int64_t>(degrees.size()); }
};

/// The derivatives by the geometry of a pair; nothing is added where the pointers are null.
template <typename T> struct GeometryGradient {
  T *cut, *ylm;    // (pairs), (pairs, orders)
};

/// The rows of derivatives to which the adjoint of the messages adds.
template <typename T> struct RowsGradient {
  T *q, *k, *v;    // as in Messages
};

/// α_h = φ s Σ_f q_f w_f k_f; Δx = α_h v, Δχ^(l) = α_l Y^(l), for the pairs (i, j) and (j, i),
/// whose filters are the same.
template <typename T, bool D> class Messages {
  using N = Number<T, D>;

 public:
  /// q, k (atoms, 2F), v (atoms, F), w (pairs, 2F): features first, then degrees.
  Messages(const LayerShape &of, const int64_t *i, const int64_t *j, const DualTensor &q,
           const DualTensor &k, const DualTensor &v, const DualTensor &w, const DualTensor &cut,
           const DualTensor &ylm) : of(of), i(i), j(j), q(q), k(k), v(v), w(w), cut(cut), ylm(ylm)
  {
  }

  void send(int64_t p, T *dx, T *dchi) const
  {
    const Ends at(*this, p);
    const auto F = of.width, wide = F / of.heads, narrow = F / of.n_degrees();
    const N phi = cut.at(p) * static_cast<T>(of.scale);
    T *x = dx + at.i * F, *x_back = dx + at.j * F;
    for (int64_t h = 0; h < of.heads; ++h) {
      N alpha, alpha_back;
      products(at, h * wide, (h + 1) * wide, alpha, alpha_back);
      alpha = alpha * phi, alpha_back = alpha_back * phi;
      each<T>(h * wide, (h + 1) * wide, [&](int64_t f, auto number) {
        using V = decltype(number);
        add(x + f, alpha * at.v_j.template at<V>(f));
        add(x_back + f, alpha_back * at.v_i.template at<V>(f));
      });
    }
    const N psi = cut.at(p) * static_cast<T>(of.chi_scale);
    const auto y = ylm.from(p * of.orders());
    T *chi = dchi + at.i * of.orders(), *chi_back = dchi + at.j * of.orders();
    for (int64_t l = 0; l < of.n_degrees(); ++l) {
      N alpha, alpha_back;
      products(at, F + l * narrow, F + (l + 1) * narrow, alpha, alpha_back);
      alpha = alpha * psi, alpha_back = alpha_back * psi * sign(l);
      for (auto m = of.order[l]; m < of.order[l + 1]; ++m) {
        add(chi + m, alpha * y.at(m));
        add(chi_back + m, alpha_back * y.at(m));
      }
    }
  }

  /// The adjoint of `send`. Writes the derivative by the filter to g_w.
  void receive(int64_t p, const Reader<T, D> &g_dx, const Reader<T, D> &g_dchi,
               const RowsGradient<T> &g, T *g_w, const GeometryGradient<T> &by_geometry) const
  {
    const Ends at(*this, p);
    const auto F = of.width, wide = F / of.heads, narrow = F / of.n_degrees();
    const N phi = cut.at(p) * static_cast<T>(of.scale);
    const auto g_x = g_dx.from(at.i * F), g_x_back = g_dx.from(at.j * F);
    T *g_v = g.v + at.j * F, *g_v_back = g.v + at.i * F;
    N g_cut{};
    for (int64_t h = 0; h < of.heads; ++h) {
      const auto first = h * wide, last = (h + 1) * wide;
      N alpha, alpha_back;
      products(at, first, last, alpha, alpha_back);
      Total<T, D> sum, sum_back;
      const N by_v = alpha * phi, by_v_back = alpha_back * phi;
      each<T>(first, last, [&](int64_t f, auto number) {
        using V = decltype(number);
        const auto x = g_x.template at<V>(f), x_back = g_x_back.template at<V>(f);
        sum += x * at.v_j.template at<V>(f);
        sum_back += x_back * at.v_i.template at<V>(f);
        add(g_v + f, by_v * x);
        add(g_v_back + f, by_v_back * x_back);
      });
      const N g_alpha = sum.total(), g_alpha_back = sum_back.total();
      g_cut = g_cut + (alpha * g_alpha + alpha_back * g_alpha_back) * static_cast<T>(of.scale);
      products_adjoint(at, first, last, phi * g_alpha, phi * g_alpha_back, g, g_w);
    }
    const N psi = cut.at(p) * static_cast<T>(of.chi_scale);
    const auto y = ylm.from(p * of.orders());
    const auto g_chi = g_dchi.from(at.i * of.orders()),
               g_chi_back = g_dchi.from(at.j * of.orders());
    for (int64_t l = 0; l < of.n_degrees(); ++l) {
      const auto first = F + l * narrow, last = F + (l + 1) * narrow;
      N g_alpha{}, g_alpha_back{};
      for (auto m = of.order[l]; m < of.order[l + 1]; ++m) {
        g_alpha = g_alpha + g_chi.at(m) * y.at(m);
        g_alpha_back = g_alpha_back + g_chi_back.at(m) * y.at(m) * sign(l);
      }
      if (by_geometry.cut) {
        N alpha, alpha_back;
        products(at, first, last, alpha, alpha_back);
        g_cut =
            g_cut + (alpha * g_alpha + alpha_back * g_alpha_back) * static_cast<T>(of.chi_scale);
        for (auto m = of.order[l]; m < of.order[l + 1]; ++m)
          by_geometry.ylm[p * of.orders() + m] =
              part(psi * (alpha * g_chi.at(m) + alpha_back * g_chi_back.at(m) * sign(l)));
      }
      products_adjoint(at, first, last, psi * g_alpha, psi * g_alpha_back, g, g_w);
    }
    if (by_geometry.cut) by_geometry.cut[p] = part(g_cut);
  }

 private:
  /// The rows of both atoms of a pair, and its filter.
  struct Ends {
    int64_t i, j;
    Reader<T, D> q_i, q_j, k_i, k_j, v_i, v_j, w;

    Ends(const Messages &of, int64_t p) :
        i(of.i[p]), j(of.j[p]), q_i(of.q.from(i * 2 * of.of.width)),
        q_j(of.q.from(j * 2 * of.of.width)), k_i(of.k.from(i * 2 * of.of.width)),
        k_j(of.k.from(j * 2 * of.of.width)), v_i(of.v.from(i * of.of.width)),
        v_j(of.v.from(j * of.of.width)), w(of.w.from(p * 2 * of.of.width))
    {
    }
  };

  /// The sign of harmonics of the opposite direction.
  T sign(int64_t l) const { return of.degrees[l] % 2 ? T(-1) : T(1); }

  /// Σ_f q_f w_f k_f over some features, in both directions.
  void products(const Ends &at, int64_t first, int64_t last, N &alpha, N &alpha_back) const
  {
    Total<T, D> sum, sum_back;
    each<T>(first, last, [&](int64_t f, auto number) {
      using V = decltype(number);
      const auto w_f = at.w.template at<V>(f);
      sum += at.q_i.template at<V>(f) * w_f * at.k_j.template at<V>(f);
      sum_back += at.q_j.template at<V>(f) * w_f * at.k_i.template at<V>(f);
    });
    alpha = sum.total(), alpha_back = sum_back.total();
  }

  void products_adjoint(const Ends &at, int64_t first, int64_t last, N g_alpha, N g_alpha_back,
                        const RowsGradient<T> &g, T *g_w) const
  {
    const auto F = of.width;
    T *q_i = g.q + at.i * 2 * F, *q_j = g.q + at.j * 2 * F;
    T *k_i = g.k + at.i * 2 * F, *k_j = g.k + at.j * 2 * F;
    each<T>(first, last, [&](int64_t f, auto number) {
      using V = decltype(number);
      const auto w_f = at.w.template at<V>(f);
      const auto k = g_alpha * at.k_j.template at<V>(f);
      const auto k_back = g_alpha_back * at.k_i.template at<V>(f);
      const auto q = at.q_i.template at<V>(f), q_back = at.q_j.template at<V>(f);
      store(g_w + f, part(q * k + q_back * k_back));
      add(q_i + f, w_f * k);
      add(q_j + f, w_f * k_back);
      add(k_j + f, w_f * (g_alpha * q));
      add(k_i + f, w_f * (g_alpha_back * q_back));
    });
  }

  const LayerShape &of;
  const int64_t *i, *j;
  Reader<T, D> q, k, v, w, cut, ylm;
};

}    // namespace So3k

#endif
