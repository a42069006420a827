/* so3k-md: messages of a tile of pairs that are near in SPHC space, with their adjoint. MIT. */

#ifndef SO3K_FAR_TILE_H
#define SO3K_FAR_TILE_H

#include <array>

#include "directions.h"
#include "far.h"
#include "filter.h"
#include "harmonics.h"
#include "multiply.h"
#include "pairs.h"

namespace So3k {

/// The derivatives to which the adjoint of non-local messages adds.
template <typename T> struct FarSlopes {
  const T *dchi;      // of the messages, (centres, orders)
  T *query, *key;     // as in Far
  T *chi, *chi_of;    // (centres, orders), (orders, members)
  double *r, *r_src;
  std::vector<T> of_norm;    // G_i of each centre, see Rows::adjoint
};

/// The arrays of one tile, allocated once and used for all tiles.
template <typename T> class FarTile {
 public:
  static constexpr int64_t SIZE = SphericalFilter<T>::SIZE;

  FarTile(const Far<T> &far, const std::vector<const T *> &steps,
          const std::vector<int64_t> &degrees) :
      far(far), harmonics(steps, degrees, SIZE),
      filter(far.into, far.bias, far.out, far.turned, far.degrees, far.hidden, far.width, 1),
      directions(SIZE, far.direction), square(far.degrees * SIZE), g_unit(3 * SIZE),
      w(SIZE * far.width), g_w(SIZE * far.width), g_distance(SIZE)
  {
  }

  /// Adds Δχ_i^(l) = Σ_j φ_ij α_ij^l Y^(l)(r̂_ij) of the pairs.
  void send(const std::vector<FarPair<T>> &pairs, T *dchi)
  {
    prepare(pairs);
    for (size_t n = 0; n < pairs.size(); ++n)
      for (const auto &way : ways(pairs[n])) {
        if (!(way.u < 1)) continue;
        T alpha[MAX_HEADS];
        attention(way, n, alpha);
        const T phi = Cutoff<T>(way.u, far.p).value;
        for (int64_t m = 0; m < far.orders; ++m)
          dchi[way.centre * far.orders + m] += phi * alpha[far.degree_of[m]] *
              (way.turn ? far.sign[m] : T(1)) * harmonics.value(m)[n];
      }
  }

  /// The adjoint of `send`.
  void send_back(const std::vector<FarPair<T>> &pairs, FarSlopes<T> &g)
  {
    prepare(pairs);
    harmonics.clear_slopes();
    std::fill(g_w.begin(), g_w.end(), T(0));
    std::fill(g_distance.begin(), g_distance.end(), T(0));
    for (size_t n = 0; n < pairs.size(); ++n)
      for (const auto &way : ways(pairs[n]))
        if (way.u < 1) way_back(way, n, g);
    const auto count = static_cast<int64_t>(pairs.size());
    filter.adjoint(count, g_w.data());
    harmonics.adjoint(directions.unit(), g_unit.data());
    for (int64_t n = 0; n < count; ++n) {
      chi_slopes(pairs[n], n, g);
      position_slopes(pairs[n], n, g);
    }
  }

 private:
  /// One direction of a pair.
  struct Way {
    int64_t centre, source;    // row of the centre, row of the source
    T u;
    bool turn;    // whether the direction is that of the other atom
  };

  std::array<Way, 2> ways(const FarPair<T> &pair) const
  {
    const auto source = far.source[pair.place];
    return {{{pair.i, source, pair.there, false},
             {pair.back, pair.back < 0 ? 0 : far.own[pair.i], pair.here, true}}};
  }

  /// Distances, directions, harmonics and filters of the pairs.
  void prepare(const std::vector<FarPair<T>> &pairs)
  {
    const auto count = static_cast<int64_t>(pairs.size());
    std::fill(square.begin(), square.end(), T(0));
    for (int64_t n = 0; n < count; ++n) {
      const auto &pair = pairs[n];
      const T *mine = far.chi + pair.i * far.orders;
      for (int64_t m = 0; m < far.orders; ++m) {
        const T difference = mine[m] - far.chi_of[m * far.members + pair.place];
        square[far.degree_of[m] * SIZE + n] += difference * difference;
      }
      const double *r = far.r + pair.i * 3, *r_src = far.r_src + far.source[pair.place] * 3;
      directions.set(n, static_cast<T>(r_src[0] - r[0]), static_cast<T>(r_src[1] - r[1]),
                     static_cast<T>(r_src[2] - r[2]));
      for (int64_t l = 0; l < far.degrees; ++l)
        filter.distance(n)[l] = far.invariants.value(l, square[l * SIZE + n]);
    }
    harmonics.evaluate(directions.unit());
    filters(count);
  }

  /// The spherical part, the constant of the radial part and, within the cutoff, the values of the
  /// table.
  void filters(int64_t count)
  {
    const auto F = far.width;
    filter.evaluate(count, w.data());
    for (int64_t n = 0; n < count; ++n) {
      T *row = &w[n * F];
#pragma omp simd
      for (int64_t f = 0; f < F; ++f) row[f] += far.shift[f];
      if (directions.length(n) < far.cutoff) far.table.add(directions.length(n), row);
    }
  }

  void attention(const Way &way, int64_t n, T *alpha) const
  {
    products(far.query + way.centre * far.width, &w[n * far.width],
             far.key + way.source * far.width, far.degrees, far.width / far.degrees, alpha);
  }

  void way_back(const Way &way, int64_t n, FarSlopes<T> &g)
  {
    const auto F = far.width, narrow = F / far.degrees;
    T alpha[MAX_HEADS], g_alpha[MAX_HEADS] = {};
    attention(way, n, alpha);
    const Cutoff<T> phi(way.u, far.p);
    T g_phi = 0;
    for (int64_t m = 0; m < far.orders; ++m) {
      const auto l = far.degree_of[m];
      const T slope = (way.turn ? far.sign[m] : T(1)) * g.dchi[way.centre * far.orders + m];
      g_alpha[l] += slope * harmonics.value(m)[n];
      harmonics.slope(m)[n] += phi.value * alpha[l] * slope;
    }
    for (int64_t l = 0; l < far.degrees; ++l) {
      g_phi += alpha[l] * g_alpha[l];
      g_alpha[l] *= phi.value;
    }
    const T by_d = g_phi * phi.slope * way.u;    // as u = exp(d − norm)
    g_distance[n] += by_d;
    g.of_norm[way.centre] += by_d;
    const T *q = far.query + way.centre * F, *k = far.key + way.source * F, *row = &w[n * F];
    T *g_q = g.query + way.centre * F, *g_k = g.key + way.source * F, *g_row = &g_w[n * F];
    for (int64_t l = 0; l < far.degrees; ++l) {
      const T slope = g_alpha[l];
#pragma omp simd
      for (int64_t f = l * narrow; f < (l + 1) * narrow; ++f) {
        g_q[f] += slope * row[f] * k[f];
        g_k[f] += slope * row[f] * q[f];
        g_row[f] += slope * q[f] * k[f];
      }
    }
  }

  /// From the derivatives of invariants and of u to those of both χ.
  void chi_slopes(const FarPair<T> &pair, int64_t n, FarSlopes<T> &g) const
  {
    T by_square[MAX_HEADS], whole = far.invariants.floor;
    for (int64_t l = 0; l < far.degrees; ++l) {
      const T s = square[l * SIZE + n];
      whole += s;
      by_square[l] = filter.slope(n)[l] * far.invariants.slope(l, s);
    }
    const T by_whole = g_distance[n] * T(0.5) / (far.temperature * std::sqrt(whole));
    for (int64_t m = 0; m < far.orders; ++m) {
      const auto place = m * far.members + pair.place;
      const T difference = far.chi[pair.i * far.orders + m] - far.chi_of[place];
      const T slope = 2 * (by_square[far.degree_of[m]] + by_whole) * difference;
      g.chi[pair.i * far.orders + m] += slope;
      g.chi_of[place] -= slope;
    }
  }

  /// From the derivatives of harmonics and of near filters to those of both positions.
  void position_slopes(const FarPair<T> &pair, int64_t n, FarSlopes<T> &g) const
  {
    const T r = directions.length(n);
    const T radial = r < far.cutoff ? far.table.slope(r, &g_w[n * far.width]) : T(0);
    T slope[3];
    directions.slope(n, g_unit.data(), radial, slope);
    for (int x = 0; x < 3; ++x) {
      g.r_src[far.source[pair.place] * 3 + x] += slope[x];
      g.r[pair.i * 3 + x] -= slope[x];
    }
  }

  const Far<T> &far;
  Harmonics<T> harmonics;
  SphericalFilter<T> filter;
  Directions<T> directions;
  std::vector<T> square, g_unit;    // (degrees, SIZE), (3, SIZE)
  std::vector<T> w, g_w;            // (SIZE, F)
  std::vector<T> g_distance;        // (SIZE), by d/T of both ways
};

}    // namespace So3k

#endif
