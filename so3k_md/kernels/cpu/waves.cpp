/* so3k-md: electrostatics of a periodic cell by a sum over waves; the equations are those of
 * so3k_md/physics/kspace.py. MIT. */

#include "waves.h"

#include <algorithm>

#include "differentiable.h"
#include "multiply.h"
#include "operators.h"
#include "threads.h"

using at::Tensor;

namespace So3k {
namespace {

  constexpr int64_t TILE = 64;    // atoms, whose waves along the axes fit the first-level caches
  constexpr int64_t SOME = 8;     // columns at once
  constexpr int64_t LEAST_WAVES = 1 << 15;    // times atoms, for which another thread pays

  std::shared_ptr<const Lattice> lattice_of(const Tensor &cell, double k_max, double ke,
                                            double sigma)
  {
    const auto rows = cell.to(at::kDouble).contiguous();
    Lattice::Key key = {{}, k_max, ke, sigma};
    std::copy_n(rows.const_data_ptr<double>(), 9, key.cell.begin());
    return lattice_of(key);
  }

  int64_t least_atoms(const Lattice &lattice)
  {
    return LEAST_WAVES / std::max<int64_t>(1, lattice.n_columns() * lattice.n_along()) + 1;
  }

  /// {cos, sin}(n θ) of a tile of atoms, a row of TILE numbers for each n from 0.
  template <typename T> struct Axis {
    std::vector<T> cos, sin;

    explicit Axis(int64_t reach) : cos((reach + 1) * TILE), sin(cos.size()) {}

    /// Each wave from the one before, in double precision.
    void fill(const double *theta)
    {
      double c1[TILE], s1[TILE], c[TILE], s[TILE];
      for (int64_t n = 0; n < TILE; ++n) {
        c1[n] = std::cos(theta[n]);
        s1[n] = std::sin(theta[n]);
        c[n] = 1;
        s[n] = 0;
      }
      for (std::size_t first = 0; first < cos.size(); first += TILE)
#pragma omp simd
        for (int64_t n = 0; n < TILE; ++n) {
          cos[first + n] = static_cast<T>(c[n]);
          sin[first + n] = static_cast<T>(s[n]);
          const double next = c[n] * c1[n] - s[n] * s1[n];
          s[n] = s[n] * c1[n] + c[n] * s1[n];
          c[n] = next;
        }
    }
  };

  /// The waves of a tile of atoms.
  template <typename T> class Waves {
   public:
    explicit Waves(const Lattice &lattice) :
        x(lattice.reach[0]), y(lattice.reach[1]), z(lattice.reach[2]), lattice(lattice)
    {
    }

    /// r: (atoms, 3), Å. The last atom fills what is left of a tile.
    void fill(const double *r, int64_t first, int64_t count)
    {
      double theta[3][TILE];
      for (int64_t n = 0; n < TILE; ++n) {
        const double *at = r + 3 * (first + std::min(n, count - 1));
        for (int a = 0; a < 3; ++a) {
          const auto &m = lattice.inverse;
          const double fraction = at[0] * m[a] + at[1] * m[3 + a] + at[2] * m[6 + a];
          theta[a][n] = 2 * Lattice::PI * (fraction - std::floor(fraction));
        }
      }
      x.fill(theta[0]);
      y.fill(theta[1]);
      z.fill(theta[2]);
    }

    /// {cos, sin}(n_x θ_x + n_y θ_y).
    void plane(const Lattice::Column &column, T *cos, T *sin) const
    {
      const T *x_cos = &x.cos[column.n_x * TILE], *x_sin = &x.sin[column.n_x * TILE];
      const auto row = std::abs(column.n_y) * TILE;
      const T *y_cos = &y.cos[row], *y_sin = &y.sin[row], sign = column.n_y < 0 ? -1 : 1;
#pragma omp simd
      for (int64_t n = 0; n < TILE; ++n) {
        cos[n] = x_cos[n] * y_cos[n] - sign * x_sin[n] * y_sin[n];
        sin[n] = x_sin[n] * y_cos[n] + sign * x_cos[n] * y_sin[n];
      }
    }

    Axis<T> x, y, z;

   private:
    const Lattice &lattice;
  };

  /// Adds Σ_j q_j {cos, sin}(plane) {cos, sin}(n_z θ_z) of some atoms to (2 columns, 2 n_z) sums.
  template <typename T>
  void add_sums(const Lattice &lattice, const T *q, const double *r, int64_t begin, int64_t end,
                double *sums)
  {
    constexpr int64_t N = Lanes<T>::COUNT;
    const auto n_columns = lattice.n_columns(), n_z = lattice.n_along();
    const auto width = (2 * n_z + N - 1) / N * N;    // whole registers
    Waves<T> waves(lattice);
    std::vector<T> along(TILE * width), plane(2 * SOME * TILE), found(2 * SOME * width);
    for (auto first = begin; first < end; first += TILE) {
      const auto count = std::min(TILE, end - first);
      waves.fill(r, first, count);
      for (int64_t n = 0; n < TILE; ++n) {
        const T charge = n < count ? q[first + n] : T(0);
        for (int64_t k = 0; k < n_z; ++k) {
          along[n * width + k] = charge * waves.z.cos[k * TILE + n];
          along[n * width + n_z + k] = charge * waves.z.sin[k * TILE + n];
        }
      }
      for (int64_t column = 0; column < n_columns; column += SOME) {
        const auto some = std::min(SOME, n_columns - column);
        for (int64_t c = 0; c < some; ++c)
          waves.plane(lattice.columns[column + c], &plane[c * TILE], &plane[(some + c) * TILE]);
        multiply(plane.data(), TILE, along.data(), width, TILE, found.data(), width, 2 * some,
                 width);
        for (int64_t c = 0; c < 2 * some; ++c) {
          double *to = sums + (c < some ? column + c : n_columns + column + c - some) * 2 * n_z;
          for (int64_t k = 0; k < 2 * n_z; ++k) to[k] += static_cast<double>(found[c * width + k]);
        }
      }
    }
  }

  Tensor wave_sums(const Tensor &q, const Tensor &r, const Tensor &cell, double k_max, double ke,
                   double sigma)
  {
    const auto lattice = lattice_of(cell, k_max, ke, sigma);
    const auto charges = q.contiguous(), places = r.to(at::kDouble).contiguous();
    const auto sums = at::zeros({2 * lattice->n_columns(), 2 * lattice->n_along()},
                                q.options().dtype(at::kDouble));
    const auto n_atoms = q.size(0), parts = parts_of(n_atoms, least_atoms(*lattice));
    const PartialSums<double> whole(sums, parts);
    AT_DISPATCH_FLOATING_TYPES(q.scalar_type(), "so3k::wave_sums", [&] {
      in_parts(parts, [&](int64_t part) {
        add_sums<scalar_t>(*lattice, charges.const_data_ptr<scalar_t>(),
                           places.const_data_ptr<double>(), bound(n_atoms, parts, part),
                           bound(n_atoms, parts, part + 1), whole.of(part));
      });
    });
    whole.add();
    return sums;
  }

  /// ∂/∂sums of Σ_k w_k |S(k)|², which gives the potential at each atom, and −∂E/∂strain.
  class Potential {
   public:
    Potential(const Lattice &lattice, const Tensor &sums) :
        rows(lattice.n_columns() * 8 * lattice.n_along())
    {
      const auto n_z = lattice.n_along(), n_columns = lattice.n_columns();
      const double *s = sums.const_data_ptr<double>();
      for (int64_t c = 0; c < n_columns; ++c)
        for (int64_t k = 0; k < n_z; ++k) {
          const double *cos = s + c * 2 * n_z + k, *sin = s + (n_columns + c) * 2 * n_z + k;
          // S(k) for +n_z and −n_z
          const double real[2] = {cos[0] - sin[n_z], cos[0] + sin[n_z]};
          const double imaginary[2] = {sin[0] + cos[n_z], sin[0] - cos[n_z]};
          const double *w = &lattice.weight[2 * (c * n_z + k)];
          for (const bool minus : {false, true})
            add_virial(lattice, lattice.columns[c], k, minus,
                       w[minus] *
                           (real[minus] * real[minus] + imaginary[minus] * imaginary[minus]));
          const double r0 = 2 * w[0] * real[0], r1 = 2 * w[1] * real[1];
          const double i0 = 2 * w[0] * imaginary[0], i1 = 2 * w[1] * imaginary[1];
          set(c, k, n_z, 0, r0 + r1, i0 - i1);
          set(c, k, n_z, 1, i0 + i1, r1 - r0);
        }
    }

    /// For each column and each of cos and sin of its plane, factors of {cos, sin}(n_z θ_z) in the
    /// potential (rows 0 and 1) and in its derivative by θ_z (rows 2 and 3), (columns, 4, 2 n_z).
    std::vector<double> rows;
    std::array<double, 9> virial = {};    // eV

   private:
    void set(int64_t c, int64_t k, int64_t n_z, int64_t row, double by_cos, double by_sin)
    {
      double *u = &rows[(4 * c + row) * 2 * n_z + k], *turned = u + 4 * n_z;
      u[0] = by_cos;
      u[n_z] = by_sin;
      // d/dθ turns (cos, sin)(n θ) into n (−sin, cos)
      turned[0] = static_cast<double>(k) * by_sin;
      turned[n_z] = -static_cast<double>(k) * by_cos;
    }

    void add_virial(const Lattice &lattice, const Lattice::Column &column, int64_t n_z, bool minus,
                    double energy)
    {
      if (energy == 0) return;
      const auto k = lattice.k(column, n_z, minus);
      const double k2 = k[0] * k[0] + k[1] * k[1] + k[2] * k[2], sigma = lattice.key.sigma;
      const double stretch = energy * (0.5 * sigma * sigma + 2 / k2);
      for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b)
          virial[3 * a + b] += (a == b ? energy : 0) - stretch * k[a] * k[b];
    }
  };

  /// φ and its derivatives by θ, in units of one turn, at some atoms.
  template <typename T>
  void add_potential(const Lattice &lattice, const std::vector<T> &rows, const double *r,
                     int64_t begin, int64_t end, T *phi, T *derivative)
  {
    const auto n_columns = lattice.n_columns(), n_z = lattice.n_along();
    Waves<T> waves(lattice);
    std::vector<T> along(2 * n_z * TILE), u(4 * SOME * TILE), cos(TILE), sin(TILE), sum(4 * TILE);
    for (auto first = begin; first < end; first += TILE) {
      const auto count = std::min(TILE, end - first);
      waves.fill(r, first, count);
      std::copy(waves.z.cos.begin(), waves.z.cos.end(), along.begin());
      std::copy(waves.z.sin.begin(), waves.z.sin.end(), along.begin() + n_z * TILE);
      std::fill(sum.begin(), sum.end(), T(0));
      T *total = sum.data(), *by_x = total + TILE, *by_y = by_x + TILE, *by_z = by_y + TILE;
      for (int64_t column = 0; column < n_columns; column += SOME) {
        const auto some = std::min(SOME, n_columns - column);
        multiply(&rows[column * 8 * n_z], 2 * n_z, along.data(), TILE, 2 * n_z, u.data(), TILE,
                 4 * some, TILE);
        for (int64_t c = 0; c < some; ++c) {
          const auto &at = lattice.columns[column + c];
          const T n_x = static_cast<T>(at.n_x), n_y = static_cast<T>(at.n_y);
          waves.plane(at, cos.data(), sin.data());
          const T *u_cos = &u[4 * c * TILE], *u_sin = u_cos + TILE;
          const T *z_cos = u_sin + TILE, *z_sin = z_cos + TILE;
#pragma omp simd
          for (int64_t n = 0; n < TILE; ++n) {
            const T turned = cos[n] * u_sin[n] - sin[n] * u_cos[n];
            total[n] += cos[n] * u_cos[n] + sin[n] * u_sin[n];
            by_x[n] += n_x * turned;
            by_y[n] += n_y * turned;
            by_z[n] += cos[n] * z_cos[n] + sin[n] * z_sin[n];
          }
        }
      }
      for (int64_t n = 0; n < count; ++n) {
        phi[first + n] = total[n];
        for (int a = 0; a < 3; ++a) derivative[3 * (first + n) + a] = sum[(a + 1) * TILE + n];
      }
    }
  }

  /// Energies, and the derivatives by charges and positions, from the potential and its
  /// derivatives.
  template <typename T>
  void finish(const Lattice &lattice, int64_t n_atoms, const T *q, const T *phi, double *energies,
              T *charges, T *positions)
  {
    const T own = static_cast<T>(lattice.key.energy / (std::sqrt(Lattice::PI) * lattice.key.sigma));
    const auto &m = lattice.inverse;
    for (int64_t n = 0; n < n_atoms; ++n) {
      energies[n] = static_cast<double>(q[n] * (T(0.5) * phi[n] - own * q[n]));
      charges[n] = phi[n] - 2 * own * q[n];
      T *d = positions + 3 * n;
      const double turn = 2 * Lattice::PI * static_cast<double>(q[n]);
      const double by[3] = {turn * d[0], turn * d[1], turn * d[2]};
      for (int x = 0; x < 3; ++x)
        d[x] = static_cast<T>(by[0] * m[3 * x] + by[1] * m[3 * x + 1] + by[2] * m[3 * x + 2]);
    }
  }

  using Found = std::tuple<Tensor, Tensor, Tensor, Tensor>;

  Found empty_results(const Tensor &q)
  {
    const auto exact = q.options().dtype(at::kDouble);
    return {at::empty(q.sizes(), exact), at::empty(q.sizes(), q.options()),
            at::empty({q.size(0), 3}, q.options()), at::empty({3, 3}, exact)};
  }

  Found wave_read(const Tensor &q, const Tensor &r, const Tensor &cell, const Tensor &sums,
                  double k_max, double ke, double sigma)
  {
    const auto lattice = lattice_of(cell, k_max, ke, sigma);
    TORCH_CHECK(sums.numel() == 4 * lattice->n_columns() * lattice->n_along(),
                "[so3k] the sums over waves are those of another cell");
    const auto charges = q.contiguous(), places = r.to(at::kDouble).contiguous();
    const Potential potential(*lattice, sums.contiguous());
    const auto found = empty_results(q);
    const auto energies = std::get<0>(found), by_q = std::get<1>(found), by_r = std::get<2>(found);
    std::copy(potential.virial.begin(), potential.virial.end(),
              std::get<3>(found).data_ptr<double>());
    const auto phi = at::empty_like(charges);
    AT_DISPATCH_FLOATING_TYPES(q.scalar_type(), "so3k::wave_read", [&] {
      const std::vector<scalar_t> rows(potential.rows.begin(), potential.rows.end());
      auto *to = phi.data_ptr<scalar_t>(), *derivative = by_r.data_ptr<scalar_t>();
      in_ranges(q.size(0), least_atoms(*lattice), [&](int64_t first, int64_t last) {
        add_potential<scalar_t>(*lattice, rows, places.const_data_ptr<double>(), first, last, to,
                                derivative);
      });
      finish<scalar_t>(*lattice, q.size(0), charges.const_data_ptr<scalar_t>(), to,
                       energies.data_ptr<double>(), by_q.data_ptr<scalar_t>(), derivative);
    });
    return found;
  }

  Found read_shapes(const Tensor &q, const Tensor &, const Tensor &, const Tensor &, double, double,
                    double)
  {
    return empty_results(q);
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  using namespace So3k;
  // no shapes of the sums for Meta: the number of waves depends on the cell
  library.def(operators::WAVE_SUMS);
  library.impl("wave_sums", torch::dispatch(c10::DispatchKey::CPU, wave_sums));
  library.def(operators::WAVE_READ);
  library.impl("wave_read", torch::dispatch(c10::DispatchKey::CPU, wave_read));
  library.impl("wave_read", torch::dispatch(c10::DispatchKey::Meta, read_shapes));
  for (const auto *name : {"wave_sums", "wave_read"}) refuse_others(library, name);
}
