/* so3k-md: distances and directions of a tile of pairs, and their adjoint. MIT. */

#ifndef SO3K_DIRECTIONS_H
#define SO3K_DIRECTIONS_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace So3k {

/// The unit vectors of a tile of pairs, a row for each component, times a sign, and distances.
template <typename T> class Directions {
 public:
  Directions(int64_t tile, T sign) : tile(tile), sign(sign), units(3 * tile), lengths(tile) {}

  void set(int64_t n, T x, T y, T z)
  {
    // a smallest distance keeps atoms at the same position finite
    lengths[n] = std::sqrt(std::max(x * x + y * y + z * z, T(1e-24)));
    const T per = sign / lengths[n];
    units[n] = x * per;
    units[tile + n] = y * per;
    units[2 * tile + n] = z * per;
  }

  const T *unit() const { return units.data(); }
  T length(int64_t n) const { return lengths[n]; }

  /// ∂E/∂vector of a pair from the derivatives by its direction, rows as in `unit`, and its
  /// distance.
  void gradient(int64_t n, const T *g_unit, T g_length, T *g_vector) const
  {
    T u[3], along = 0;
    for (int x = 0; x < 3; ++x) {
      u[x] = sign * units[x * tile + n];
      along += u[x] * g_unit[x * tile + n];
    }
    for (int x = 0; x < 3; ++x)
      g_vector[x] = sign * (g_unit[x * tile + n] - along * u[x]) / lengths[n] + g_length * u[x];
  }

 private:
  int64_t tile;
  T sign;
  std::vector<T> units, lengths;
};

}    // namespace So3k

#endif
