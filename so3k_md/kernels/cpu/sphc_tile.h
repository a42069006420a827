/* so3k-md: messages of a tile of pairs that are near in SPHC space, with their adjoint. MIT. */

#ifndef SO3K_SPHC_TILE_H
#define SO3K_SPHC_TILE_H

#include <array>

#include "directions.h"
#include "filter.h"
#include "harmonics.h"
#include "multiply.h"
#include "pairs.h"
#include "sphc.h"

namespace So3k {

/// The derivatives to which the adjoint of non-local messages adds.
template <typename T> struct SphcGradient {
  const T *dchi;      // of the messages, (centres, orders)
  T *query, *key;     // as in Sphc
  T *chi, *chi_of;    // (centres, orders), (orders, members)
  double *r, *r_src;
  T *of_norm;    // G_i of each centre, see Rows::adjoint
};

/// The arrays of one tile, allocated once and used for all tiles.
template <typename T> class SphcTile {
 public:
  static constexpr int64_t SIZE = SphericalFilter<T>::SIZE;

  SphcTile(const Sphc<T> &sphc, const std::vector<const T *> &steps,
           const std::vector<int64_t> &degrees) :
      sphc(sphc), harmonics(steps, degrees, SIZE),
      filter(sphc.into, sphc.bias, sphc.out, sphc.transposed, sphc.degrees, sphc.hidden, sphc.width,
             1),
      directions(SIZE, sphc.direction), square(sphc.degrees * SIZE), g_unit(3 * SIZE),
      w(SIZE * sphc.width), g_w(SIZE * sphc.width), g_distance(SIZE)
  {
  }

  /// Adds Δχ_i^(l) = Σ_j φ_ij α_ij^l Y^(l)(r̂_ij) of the pairs.
  void send(const std::vector<SphcPair<T>> &pairs, T *dchi)
  {
    prepare(pairs);
    for (size_t n = 0; n < pairs.size(); ++n)
      for (const auto &message : messages(pairs[n])) {
        if (!(message.u < 1)) continue;
        T alpha[MAX_HEADS];
        attention(message, n, alpha);
        const T phi = Cutoff<T>(message.u, sphc.p).value;
        for (int64_t m = 0; m < sphc.orders; ++m)
          dchi[message.centre * sphc.orders + m] += phi * alpha[sphc.degree_of[m]] *
              (message.turn ? sphc.sign[m] : T(1)) * harmonics.value(m)[n];
      }
  }

  /// The adjoint of `send`.
  void send_back(const std::vector<SphcPair<T>> &pairs, SphcGradient<T> &g)
  {
    prepare(pairs);
    harmonics.clear_gradient();
    std::fill(g_w.begin(), g_w.end(), T(0));
    std::fill(g_distance.begin(), g_distance.end(), T(0));
    for (size_t n = 0; n < pairs.size(); ++n)
      for (const auto &message : messages(pairs[n]))
        if (message.u < 1) message_adjoint(message, n, g);
    const auto count = static_cast<int64_t>(pairs.size());
    filter.adjoint(count, g_w.data());
    harmonics.adjoint(directions.unit(), g_unit.data());
    for (int64_t n = 0; n < count; ++n) {
      add_chi_gradient(pairs[n], n, g);
      add_position_gradient(pairs[n], n, g);
    }
  }

 private:
  /// The message of a pair in one direction.
  struct Message {
    int64_t centre, source;    // row of the centre, row of the source
    T u;
    bool turn;    // whether the direction is that of the other atom
  };

  std::array<Message, 2> messages(const SphcPair<T> &pair) const
  {
    const auto source = sphc.source[pair.place];
    return {{{pair.i, source, pair.there, false},
             {pair.back, pair.back < 0 ? 0 : sphc.own[pair.i], pair.here, true}}};
  }

  /// Distances, directions, harmonics and filters of the pairs.
  void prepare(const std::vector<SphcPair<T>> &pairs)
  {
    const auto count = static_cast<int64_t>(pairs.size());
    std::fill(square.begin(), square.end(), T(0));
    for (int64_t n = 0; n < count; ++n) {
      const auto &pair = pairs[n];
      const T *mine = sphc.chi + pair.i * sphc.orders;
      for (int64_t m = 0; m < sphc.orders; ++m) {
        const T difference = mine[m] - sphc.chi_of[m * sphc.members + pair.place];
        square[sphc.degree_of[m] * SIZE + n] += difference * difference;
      }
      const double *r = sphc.r + pair.i * 3, *r_src = sphc.r_src + sphc.source[pair.place] * 3;
      directions.set(n, static_cast<T>(r_src[0] - r[0]), static_cast<T>(r_src[1] - r[1]),
                     static_cast<T>(r_src[2] - r[2]));
      for (int64_t l = 0; l < sphc.degrees; ++l)
        filter.distance(n)[l] = sphc.invariants.value(l, square[l * SIZE + n]);
    }
    harmonics.evaluate(directions.unit());
    filters(count);
  }

  /// The spherical part, the constant of the radial part and, within the cutoff, the values of the
  /// table.
  void filters(int64_t count)
  {
    const auto F = sphc.width;
    filter.evaluate(count, w.data());
    for (int64_t n = 0; n < count; ++n) {
      T *row = &w[n * F];
#pragma omp simd
      for (int64_t f = 0; f < F; ++f) row[f] += sphc.shift[f];
      if (directions.length(n) < sphc.cutoff) sphc.table.add(directions.length(n), row);
    }
  }

  void attention(const Message &message, int64_t n, T *alpha) const
  {
    products(sphc.query + message.centre * sphc.width, &w[n * sphc.width],
             sphc.key + message.source * sphc.width, sphc.degrees, sphc.width / sphc.degrees,
             alpha);
  }

  void message_adjoint(const Message &message, int64_t n, SphcGradient<T> &g)
  {
    const auto F = sphc.width, narrow = F / sphc.degrees;
    T alpha[MAX_HEADS], g_alpha[MAX_HEADS] = {};
    attention(message, n, alpha);
    const Cutoff<T> phi(message.u, sphc.p);
    T g_phi = 0;
    for (int64_t m = 0; m < sphc.orders; ++m) {
      const auto l = sphc.degree_of[m];
      const T g_y = (message.turn ? sphc.sign[m] : T(1)) * g.dchi[message.centre * sphc.orders + m];
      g_alpha[l] += g_y * harmonics.value(m)[n];
      harmonics.gradient(m)[n] += phi.value * alpha[l] * g_y;
    }
    for (int64_t l = 0; l < sphc.degrees; ++l) {
      g_phi += alpha[l] * g_alpha[l];
      g_alpha[l] *= phi.value;
    }
    const T by_d = g_phi * phi.derivative * message.u;    // as u = exp(d − norm)
    g_distance[n] += by_d;
    g.of_norm[message.centre] += by_d;
    const T *q = sphc.query + message.centre * F, *k = sphc.key + message.source * F,
            *row = &w[n * F];
    T *g_q = g.query + message.centre * F, *g_k = g.key + message.source * F, *g_row = &g_w[n * F];
    for (int64_t l = 0; l < sphc.degrees; ++l) {
      const T g_l = g_alpha[l];
#pragma omp simd
      for (int64_t f = l * narrow; f < (l + 1) * narrow; ++f) {
        g_q[f] += g_l * row[f] * k[f];
        g_k[f] += g_l * row[f] * q[f];
        g_row[f] += g_l * q[f] * k[f];
      }
    }
  }

  /// From the derivatives of invariants and of u to those of both χ.
  void add_chi_gradient(const SphcPair<T> &pair, int64_t n, SphcGradient<T> &g) const
  {
    T by_square[MAX_HEADS], whole = sphc.invariants.floor;
    for (int64_t l = 0; l < sphc.degrees; ++l) {
      const T s = square[l * SIZE + n];
      whole += s;
      by_square[l] = filter.gradient(n)[l] * sphc.invariants.derivative(l, s);
    }
    const T by_whole = g_distance[n] * T(0.5) / (sphc.temperature * std::sqrt(whole));
    for (int64_t m = 0; m < sphc.orders; ++m) {
      const auto place = m * sphc.members + pair.place;
      const T difference = sphc.chi[pair.i * sphc.orders + m] - sphc.chi_of[place];
      const T derivative = 2 * (by_square[sphc.degree_of[m]] + by_whole) * difference;
      g.chi[pair.i * sphc.orders + m] += derivative;
      g.chi_of[place] -= derivative;
    }
  }

  /// From the derivatives of harmonics and of near filters to those of both positions.
  void add_position_gradient(const SphcPair<T> &pair, int64_t n, SphcGradient<T> &g) const
  {
    const T r = directions.length(n);
    const T radial = r < sphc.cutoff ? sphc.table.derivative(r, &g_w[n * sphc.width]) : T(0);
    T derivative[3];
    directions.gradient(n, g_unit.data(), radial, derivative);
    for (int x = 0; x < 3; ++x) {
      g.r_src[sphc.source[pair.place] * 3 + x] += derivative[x];
      g.r[pair.i * 3 + x] -= derivative[x];
    }
  }

  const Sphc<T> &sphc;
  Harmonics<T> harmonics;
  SphericalFilter<T> filter;
  Directions<T> directions;
  std::vector<T> square, g_unit;    // (degrees, SIZE), (3, SIZE)
  std::vector<T> w, g_w;            // (SIZE, F)
  std::vector<T> g_distance;        // (SIZE), by d/T of both messages
};

}    // namespace So3k

#endif
