/* so3k-md: functions of the rows of atoms, and their adjoints, in numbers or dual numbers. MIT.
 *
 * The equations are those of so3k_md/nn. Functions of one row read its numbers by a `Reader`, and
 * write or add the part that a pass computes. */

#ifndef SO3K_ROWS_H
#define SO3K_ROWS_H

#include <cstdint>
#include <vector>

#include "dual.h"
#include "filter.h"

namespace So3k {

/// (x − mean) / √(variance + ε) w + b.
template <typename T, bool D> struct RowNorm {
  using N = Number<T, D>;
  static constexpr double EPS = 1e-6;

  int64_t width;
  const T *weight;

  /// Mean and 1 / √(variance + ε).
  void statistics(const Reader<T, D> &x, N &mean, N &per) const
  {
    Total<T, D> sum, squares;
    each<T>(0, width, [&](int64_t f, auto number) { sum += x.template at<decltype(number)>(f); });
    const N middle = sum.total() / static_cast<T>(width);
    each<T>(0, width, [&](int64_t f, auto number) {
      const auto off = x.template at<decltype(number)>(f) - middle;
      squares += off * off;
    });
    mean = middle;
    per = T(1) / sqrt(squares.total() / static_cast<T>(width) + static_cast<T>(EPS));
  }

  void forward(const Reader<T, D> &x, const T *bias, T *to) const
  {
    N mean, per;
    statistics(x, mean, per);
    for (int64_t f = 0; f < width; ++f) {
      const auto y = (x.at(f) - mean) * per * weight[f];
      to[f] = part(y) + (D ? T(0) : bias[f]);
    }
  }

  /// Derivatives by x and, added, by w.
  void backward(const Reader<T, D> &x, const Reader<T, D> &g, T *to, T *to_weight) const
  {
    N mean, per;
    statistics(x, mean, per);
    N sum{}, along{};
    for (int64_t f = 0; f < width; ++f) {
      const N hat = (x.at(f) - mean) * per, share = g.at(f) * weight[f];
      sum = sum + share;
      along = along + share * hat;
      to_weight[f] += part(g.at(f) * hat);
    }
    sum = sum / static_cast<T>(width), along = along / static_cast<T>(width);
    for (int64_t f = 0; f < width; ++f) {
      const N hat = (x.at(f) - mean) * per;
      to[f] = part((g.at(f) * weight[f] - sum - hat * along) * per);
    }
  }
};

/// Functions of the χ of one row.
template <typename T, bool D> struct ChiRow {
  using N = Number<T, D>;

  const std::vector<int64_t> &order;    // where the components of each degree begin, and the end
  const Invariants<T> &invariants;

  int64_t degrees() const { return static_cast<int64_t>(order.size()) - 1; }

  N square(const Reader<T, D> &chi, int64_t l) const
  {
    N sum{};
    for (auto m = order[l]; m < order[l + 1]; ++m) sum = sum + chi.at(m) * chi.at(m);
    return sum;
  }

  void invariant(const Reader<T, D> &chi, T *to) const
  {
    for (int64_t l = 0; l < degrees(); ++l) to[l] = part(invariants.value(l, square(chi, l)));
  }
  /// Adds to the derivatives by χ.
  void invariant_adjoint(const Reader<T, D> &chi, const Reader<T, D> &g, T *to) const
  {
    for (int64_t l = 0; l < degrees(); ++l) {
      const N factor = g.at(l) * invariants.derivative(l, square(chi, l)) * T(2);
      for (auto m = order[l]; m < order[l + 1]; ++m) add(to + m, factor * chi.at(m));
    }
  }

  /// s_l χ^(l) / √(‖χ^(l)‖² + ε²)
  void norm(const Reader<T, D> &chi, const T *scale, T *to) const
  {
    for (int64_t l = 0; l < degrees(); ++l) {
      const N factor = scale[l] / sqrt(square(chi, l) + invariants.floor);
      for (auto m = order[l]; m < order[l + 1]; ++m) to[m] = part(factor * chi.at(m));
    }
  }
  /// Derivatives by χ and, added, by s.
  void norm_adjoint(const Reader<T, D> &chi, const Reader<T, D> &g, const T *scale, T *to,
                    T *to_scale) const
  {
    for (int64_t l = 0; l < degrees(); ++l) {
      const N square = this->square(chi, l) + invariants.floor, per = T(1) / sqrt(square);
      N along{};
      for (auto m = order[l]; m < order[l + 1]; ++m) along = along + chi.at(m) * g.at(m);
      add(to_scale + l, along * per);
      for (auto m = order[l]; m < order[l + 1]; ++m)
        to[m] = part((g.at(m) - chi.at(m) * (along / square)) * per * scale[l]);
    }
  }
};

/// x' = f (x + a1 + a2 a3), χ'^(l) = (1 + b1_l) χ^(l) + b2_l χ̃^(l), where y = (a1, a2, b1, b2) is
/// the output of a linear map. Without SelfMix a2, a3, b2 and χ̃ are absent and f = 1; with it f =
/// 1/√3.
template <typename T, bool D, bool MIXES> struct ExchangeRow {
  using Read = Reader<T, D>;
  using N = Number<T, D>;

  int64_t width;    // F
  const std::vector<int64_t> &order;

  int64_t degrees() const { return static_cast<int64_t>(order.size()) - 1; }
  int64_t first_b() const { return (MIXES ? 2 : 1) * width; }
  static T factor() { return MIXES ? static_cast<T>(1 / std::sqrt(3.0)) : T(1); }

  void features(const Read &x, const Read &y, const Read &a3, T *to) const
  {
    each<T>(0, width, [&](int64_t f, auto number) {
      using V = decltype(number);
      auto sum = x.template at<V>(f) + y.template at<V>(f);
      if constexpr (MIXES) sum = sum + y.template at<V>(width + f) * a3.template at<V>(f);
      const V found = part(sum * factor());
      store(to + f, found);
    });
  }
  void chi(const Read &chi, const Read &y, const Read &mixed, T *to) const
  {
    const auto b = y.from(first_b());
    for (int64_t l = 0; l < degrees(); ++l)
      for (auto m = order[l]; m < order[l + 1]; ++m) {
        N sum = (b.at(l) + T(1)) * chi.at(m);
        if constexpr (MIXES) sum = sum + b.at(degrees() + l) * mixed.at(m);
        to[m] = part(sum);
      }
  }

  /// Derivatives by y and a3.
  void features_adjoint(const Read &g, const Read &y, const Read &a3, T *to_y, T *to_a3) const
  {
    each<T>(0, width, [&](int64_t f, auto number) {
      using V = decltype(number);
      const auto each_of = g.template at<V>(f) * factor();
      store(to_y + f, part(each_of));
      if constexpr (MIXES) {
        store(to_y + width + f, part(each_of * a3.template at<V>(f)));
        store(to_a3 + f, part(each_of * y.template at<V>(width + f)));
      }
    });
  }
  /// Derivatives by y, χ and χ̃.
  void chi_adjoint(const Read &g, const Read &chi, const Read &y, const Read &mixed, T *to_y,
                   T *to_chi, T *to_mixed) const
  {
    const auto b = y.from(first_b());
    for (int64_t l = 0; l < degrees(); ++l) {
      N by_b1{}, by_b2{};
      for (auto m = order[l]; m < order[l + 1]; ++m) {
        by_b1 = by_b1 + g.at(m) * chi.at(m);
        to_chi[m] = part((b.at(l) + T(1)) * g.at(m));
        if constexpr (MIXES) {
          by_b2 = by_b2 + g.at(m) * mixed.at(m);
          to_mixed[m] = part(b.at(degrees() + l) * g.at(m));
        }
      }
      to_y[first_b() + l] = part(by_b1);
      if constexpr (MIXES) to_y[first_b() + degrees() + l] = part(by_b2);
    }
  }
};

}    // namespace So3k

#endif
