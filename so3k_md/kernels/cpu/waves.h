/* so3k-md: the wave vectors of a periodic cell, kept while cells repeat. MIT. */

#ifndef SO3K_WAVES_H
#define SO3K_WAVES_H

#include <array>
#include <cmath>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <vector>

namespace So3k {

/// One k of each pair ±k as k = n_x b_x + n_y b_y ± n_z b_z with n_z ≥ 0; a column is one
/// (n_x, n_y). The same waves in the same order as `Lattice` in physics/kspace.py.
struct Lattice {
  struct Column {
    int64_t n_x, n_y;
  };
  /// What the lattice follows from.
  struct Key {
    std::array<double, 9> cell;     // lattice vectors as rows, Å
    double k_max, energy, sigma;    // 1/Å, k_e in eV Å, Å

    bool operator==(const Key &other) const
    {
      return cell == other.cell && k_max == other.k_max && energy == other.energy &&
          sigma == other.sigma;
    }
  };

  Key key;
  std::array<double, 9> inverse;    // fractional coordinates are r · inverse
  std::array<int64_t, 3> reach;     // largest n_x, n_y, n_z
  std::vector<Column> columns;
  std::vector<double> weight;    // (columns, n_z, 2) for +n_z and −n_z, eV/e²; zero for no wave

  explicit Lattice(const Key &key) : key(key)
  {
    invert();
    for (int a = 0; a < 3; ++a) {
      const double *v = &key.cell[3 * a];
      const double length = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
      reach[a] = static_cast<int64_t>(std::floor(key.k_max / (2 * PI) * length));
    }
    for (int64_t n_x = 0; n_x <= reach[0]; ++n_x)
      for (int64_t n_y = -reach[1]; n_y <= reach[1]; ++n_y) add({n_x, n_y});
  }

  int64_t n_columns() const { return static_cast<int64_t>(columns.size()); }
  int64_t n_along() const { return reach[2] + 1; }

  /// k for +n_z and −n_z.
  std::array<double, 3> k(const Column &column, int64_t n_z, bool minus) const
  {
    std::array<double, 3> found;
    const auto up = static_cast<double>(minus ? -n_z : n_z);
    for (int x = 0; x < 3; ++x)
      found[x] = 2 * PI *
          (static_cast<double>(column.n_x) * inverse[3 * x] +
           static_cast<double>(column.n_y) * inverse[3 * x + 1] + up * inverse[3 * x + 2]);
    return found;
  }

  static constexpr double PI = 3.14159265358979323846;

 private:
  double volume = 0;

  void invert()
  {
    const auto &m = key.cell;
    const auto minor = [&](int a, int b) {
      const int r = (a + 1) % 3, s = (a + 2) % 3, c = (b + 1) % 3, d = (b + 2) % 3;
      return m[3 * r + c] * m[3 * s + d] - m[3 * r + d] * m[3 * s + c];
    };
    const double determinant = m[0] * minor(0, 0) + m[1] * minor(0, 1) + m[2] * minor(0, 2);
    volume = std::abs(determinant);
    for (int a = 0; a < 3; ++a)
      for (int b = 0; b < 3; ++b) inverse[3 * b + a] = minor(a, b) / determinant;
  }

  /// Adds a column if it has a wave shorter than k_max. Of ±k the one whose first nonzero n is
  /// positive is kept; −n_z is another k unless n_z = 0.
  void add(const Column &column)
  {
    const auto order = column.n_x * (2 * reach[1] + 1) + column.n_y;
    std::vector<double> found(2 * n_along(), 0.0);
    bool used = false;
    for (int64_t n_z = 0; n_z < n_along(); ++n_z)
      for (const bool minus : {false, true}) {
        const bool once = order > 0 ? !minus || n_z > 0 : order == 0 && n_z > 0 && !minus;
        const auto v = k(column, n_z, minus);
        const double k2 = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
        if (!once || k2 >= key.k_max * key.k_max) continue;
        found[2 * n_z + minus] =
            4 * PI * key.energy / volume * std::exp(-0.25 * key.sigma * key.sigma * k2) / k2;
        used = true;
      }
    if (!used) return;
    columns.push_back(column);
    weight.insert(weight.end(), found.begin(), found.end());
  }
};

/// The lattice of a cell; those of the last cells are kept.
inline std::shared_ptr<const Lattice> lattice_of(const Lattice::Key &key)
{
  constexpr std::size_t RECENT = 4;
  static std::mutex mutex;
  static std::list<std::shared_ptr<const Lattice>> recent;
  const std::lock_guard<std::mutex> lock(mutex);
  for (auto each = recent.begin(); each != recent.end(); ++each)
    if ((*each)->key == key) {
      recent.splice(recent.begin(), recent, each);
      return recent.front();
    }
  recent.push_front(std::make_shared<const Lattice>(key));
  if (recent.size() > RECENT) recent.pop_back();
  return recent.front();
}

}    // namespace So3k

#endif
