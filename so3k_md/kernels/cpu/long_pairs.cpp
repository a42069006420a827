/* so3k-md: dispersion and shifted electrostatics of pairs, with their derivatives; the equations
 * are those of so3k_md/physics. MIT. */

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include <ATen/Dispatch.h>

#include "differentiable.h"
#include "dispersion.h"
#include "operators.h"
#include "threads.h"

using at::Tensor;

namespace So3k {
namespace {

  constexpr int64_t TILE = 256;            // pairs whose numbers fit the first-level cache
  constexpr int64_t LEAST_PAIRS = 2048;    // for which another thread pays

  using Constants = LongRangeConstants;

  /// The numbers of a tile, one array for each quantity.
  template <typename T> struct Tile {
    T x[3][TILE], r[TILE], a_i[TILE], a_j[TILE], v[TILE], w[TILE], dw[TILE];
    T e[TILE], by_mean[TILE], by_r[TILE];
  };

  template <typename T> void dispersion(Tile<T> &tile, const Dispersion<T> &of)
  {
#pragma omp simd
    for (int64_t n = 0; n < TILE; ++n)
      of(tile.a_i[n], tile.a_j[n], tile.v[n], tile.r[n], tile.w[n], tile.dw[n], tile.e[n],
         tile.by_mean[n], tile.by_r[n]);
  }

  /// Polarizabilities of the atoms and of free atoms, and v = α⁰² / C6⁰, a.u.
  template <typename T> struct Atoms {
    std::vector<T> alpha, free, v;

    /// `of_alpha`, `of_v`: of each element, float64.
    Atoms(const Tensor &species, const Tensor &h, const Tensor &of_alpha, const Tensor &of_v)
    {
      const auto *z = species.const_data_ptr<int64_t>();
      const auto *ratio = h.const_data_ptr<T>();
      for (int64_t n = 0; n < h.numel(); ++n) {
        free.push_back(static_cast<T>(of_alpha.const_data_ptr<double>()[z[n]]));
        v.push_back(static_cast<T>(of_v.const_data_ptr<double>()[z[n]]));
        alpha.push_back(free[n] * ratio[n]);
      }
    }
  };

  /// Adds φ, ψ and ∂E/∂α through the mean to (3, rows) sums, and sets the gradient of each pair.
  template <typename T>
  void run(const Tensor &vectors, const Tensor &idx_i, const Tensor &idx_j, const Atoms<T> &atoms,
           const Tensor &q, const Constants &of, const Tensor &sums, const Tensor &gradients)
  {
    const auto n_pairs = vectors.size(0), n_rows = q.size(0);
    const auto *d = vectors.const_data_ptr<double>();
    const auto *i = idx_i.const_data_ptr<int64_t>(), *j = idx_j.const_data_ptr<int64_t>();
    const auto *a = atoms.alpha.data(), *of_v = atoms.v.data();
    const auto *charge = q.const_data_ptr<T>();
    auto *derivative = gradients.data_ptr<T>();
    const T cutoff = of.cutoff, on = of.cutoff - of.taper, ke = of.ke;
    const Shifted<T> shifted(cutoff);
    const Dispersion<T> pair(of);
    const auto parts = parts_of(n_pairs, LEAST_PAIRS);
    const PartialSums<double> of_rows(sums, parts);
    in_parts(parts, [&](int64_t part) {
      auto *phi = of_rows.of(part), *psi = phi + n_rows, *through_mean = psi + n_rows;
      const auto tile_memory = std::make_unique<Tile<T>>();
      auto &tile = *tile_memory;
      const auto end = bound(n_pairs, parts, part + 1);
      for (auto first = bound(n_pairs, parts, part); first < end; first += TILE) {
        const auto count = std::min(TILE, end - first);
        for (int64_t n = 0; n < TILE; ++n) {
          const auto p = first + std::min(n, count - 1);    // the last one fills what is left
          T r2 = 0;
          for (int x = 0; x < 3; ++x) {
            tile.x[x][n] = static_cast<T>(d[3 * p + x]);
            r2 += tile.x[x][n] * tile.x[x][n];
          }
          // clamped to a smallest distance, which keeps atoms at the same position finite, and to
          // the cutoff, where everything is zero
          tile.r[n] = std::sqrt(std::min(std::max(r2, T(1e-6)), cutoff * cutoff));
          tile.a_i[n] = a[i[p]];
          tile.a_j[n] = a[j[p]];
          tile.v[n] = of_v[i[p]] + of_v[j[p]];
          tile.w[n] = 1;
          tile.dw[n] = 0;
          if (tile.r[n] > on) switched(tile.r[n], on, cutoff, tile.w[n], tile.dw[n]);
        }
        dispersion(tile, pair);
        for (int64_t n = 0; n < count; ++n) {
          const auto p = first + n, here = i[p], there = j[p];
          psi[here] += static_cast<double>(tile.a_j[n] * tile.e[n]);
          psi[there] += static_cast<double>(tile.a_i[n] * tile.e[n]);
          through_mean[here] += static_cast<double>(tile.by_mean[n]);
          through_mean[there] += static_cast<double>(tile.by_mean[n]);
          T by_r = tile.by_r[n];
          if (of.coulomb) {
            T k, dk;
            shifted(tile.r[n], k, dk);
            phi[here] += static_cast<double>(ke * charge[there] * k);
            phi[there] += static_cast<double>(ke * charge[here] * k);
            by_r += ke * charge[here] * charge[there] * dk;
          }
          for (int x = 0; x < 3; ++x) derivative[3 * p + x] = tile.x[x][n] * (by_r / tile.r[n]);
        }
      }
    });
    of_rows.add();
  }

  /// Energies of atoms, gradients of pairs, and derivatives by charges and ratios.
  using Found = std::tuple<Tensor, Tensor, Tensor, Tensor>;

  Found empty_results(const Tensor &vectors, const Tensor &q)
  {
    return {at::empty({q.size(0), 2}, q.options().dtype(at::kDouble)),
            at::empty({vectors.size(0), 3}, q.options()), at::empty_like(q), at::empty_like(q)};
  }

  template <typename T>
  void finish(const Atoms<T> &atoms, const Tensor &q, const Tensor &sums, const Found &found)
  {
    const auto n_rows = q.numel();
    const auto *phi = sums.const_data_ptr<double>(), *psi = phi + n_rows;
    const auto *through_mean = psi + n_rows;
    const auto *charge = q.const_data_ptr<T>();
    auto *energies = std::get<0>(found).template data_ptr<double>();
    auto *by_q = std::get<2>(found).template data_ptr<T>();
    auto *by_h = std::get<3>(found).template data_ptr<T>();
    for (int64_t n = 0; n < n_rows; ++n) {
      energies[2 * n] = 0.5 * static_cast<double>(charge[n]) * phi[n];
      energies[2 * n + 1] = 0.5 * static_cast<double>(atoms.alpha[n]) * psi[n];
      by_q[n] = static_cast<T>(phi[n]);
      by_h[n] = atoms.free[n] * static_cast<T>(psi[n] + through_mean[n]);
    }
  }

  Found long_pairs(const Tensor &vectors, const Tensor &idx_i, const Tensor &idx_j,
                   const Tensor &species, const Tensor &q, const Tensor &h, const Tensor &alpha,
                   const Tensor &v, bool coulomb, double cutoff, double taper, double ke,
                   double bohr, double hartree)
  {
    const Constants of = {cutoff, taper, ke, bohr, hartree, coulomb};
    const auto charges = q.contiguous();
    const auto d = vectors.to(at::kDouble).contiguous();
    const auto found = empty_results(vectors, charges);
    const auto sums = at::zeros({3, q.size(0)}, q.options().dtype(at::kDouble));
    AT_DISPATCH_FLOATING_TYPES(q.scalar_type(), "so3k::long_pairs", [&] {
      const Atoms<scalar_t> atoms(species.contiguous(), h.contiguous(), alpha.contiguous(),
                                  v.contiguous());
      run<scalar_t>(d, idx_i.contiguous(), idx_j.contiguous(), atoms, charges, of, sums,
                    std::get<1>(found));
      finish<scalar_t>(atoms, charges, sums, found);
    });
    return found;
  }

  Found shapes(const Tensor &vectors, const Tensor &, const Tensor &, const Tensor &,
               const Tensor &q, const Tensor &, const Tensor &, const Tensor &, bool, double,
               double, double, double, double)
  {
    return empty_results(vectors, q);
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  using namespace So3k;
  library.def(operators::LONG_PAIRS);
  library.impl("long_pairs", torch::dispatch(c10::DispatchKey::CPU, long_pairs));
  library.impl("long_pairs", torch::dispatch(c10::DispatchKey::Meta, shapes));
}
