/* so3k-md: long-range pairs on a GPU. MIT. */

#include "../cpu/differentiable.h"
#include "../cpu/dispersion.h"
#include "../cpu/operators.h"

#include "long_range.h"
#include "program.h"
#include "tensors.h"

using at::Tensor;

namespace So3k {
namespace {

  constexpr int THREADS = 128;    // of device/long_pairs.cu
  constexpr int WARPS = 4;        // of device/warp.h

  /// Pairs in rows have a row of entries for each centre instead of one second atom; see
  /// so3k_md/graph.py.
  bool in_rows(const Tensor &idx_j)
  {
    return idx_j.dim() == 2;
  }

  /// Each pair once; returns the gradients of pairs.
  Tensor of_pairs(const LongRangeAtoms &atoms, const LongRangeConstants &constants,
                  const Tensor &vectors, const Tensor &idx_i, const Tensor &idx_j,
                  const Tensor &sums)
  {
    const auto gradients = at::empty(vectors.sizes(), vectors.options().dtype(at::kFloat));
    LongRangePairs pairs{};
    pairs.pairs = vectors.size(0), pairs.rows = sums.size(1);
    pairs.vectors = vectors.const_data_ptr<double>();
    pairs.i = integers(idx_i), pairs.j = integers(idx_j);
    pairs.atoms = atoms, pairs.constants = constants;
    pairs.gradients = gradients.data_ptr<float>(), pairs.sums = sums.data_ptr<double>();
    launch({"long_pairs.cu", {}}, "long_pairs", vectors.device(),
           (pairs.pairs + THREADS - 1) / THREADS, THREADS, &pairs);
    return gradients;
  }

  /// Rows of all neighbors; returns the gradients of all positions, then for each centre its share
  /// of Σ (r_j - r_i) ⊗ ∂E/∂(r_j - r_i), three rows.
  Tensor of_rows(const LongRangeAtoms &atoms, const LongRangeConstants &constants,
                 const Tensor &places, const Tensor &length, const Tensor &entries,
                 const Tensor &sums)
  {
    LongRangeRows rows{};
    rows.centres = length.size(0), rows.sources = sums.size(1), rows.width = entries.size(1);
    TORCH_CHECK(places.size(0) == rows.sources + 3,
                "[so3k] pairs in rows come with the positions of all atoms and three lattice "
                "vectors: pass these as vectors");
    const auto gradients = at::zeros({rows.sources + 3 * rows.centres, 3}, places.options());
    rows.places = places.const_data_ptr<double>();
    rows.length = length.const_data_ptr<int>(), rows.rows = integers(entries);
    rows.atoms = atoms, rows.constants = constants;
    rows.gradients = gradients.data_ptr<double>();
    rows.outer = rows.gradients + 3 * rows.sources;
    rows.sums = sums.data_ptr<double>();
    launch({"long_rows.cu", {}}, "long_rows", places.device(), (rows.centres + WARPS - 1) / WARPS,
           32 * WARPS, &rows);
    return gradients;
  }

  std::tuple<Tensor, Tensor, Tensor, Tensor>
  long_pairs(const Tensor &vectors, const Tensor &idx_i, const Tensor &idx_j, const Tensor &species,
             const Tensor &q, const Tensor &h, const Tensor &alpha, const Tensor &v, bool coulomb,
             double cutoff, double taper, double ke, double bohr, double hartree)
  {
    require_float(q);
    const auto free = alpha.index_select(0, species).to(at::kFloat), of_alpha = free * h;
    const auto of_v = v.index_select(0, species).to(at::kFloat), charge = q.contiguous();
    const auto sums = at::zeros({3, q.size(0)}, q.options().dtype(at::kDouble));
    const LongRangeAtoms atoms = {floats(of_alpha), floats(of_v), floats(charge)};
    const LongRangeConstants constants = {cutoff, taper, ke, bohr, hartree, coulomb};
    const auto gradients = (in_rows(idx_j) ? of_rows : of_pairs)(
        atoms, constants, vectors.to(at::kDouble).contiguous(), idx_i.contiguous(),
        idx_j.contiguous(), sums);
    const auto phi = sums[0], psi = sums[1];
    const auto energies = 0.5 * at::stack({q * phi, of_alpha * psi}, 1);
    return {energies, gradients, phi.to(at::kFloat), free * (psi + sums[2]).to(at::kFloat)};
  }

  /// Forces and virial from the gradients of pairs.
  std::tuple<Tensor, Tensor> tally(const Tensor &vectors, const Tensor &gradients,
                                   const Tensor &idx_i, const Tensor &idx_j, const Tensor &frame,
                                   int64_t n_frames)
  {
    if (in_rows(idx_j)) {
      TORCH_CHECK(n_frames == 1,
                  "[so3k] pairs in rows are those of one structure: evaluate each "
                  "structure by itself");
      const auto n_sources = vectors.size(0) - 3;
      return {gradients.slice(0, 0, n_sources).clone(),
              gradients.slice(0, n_sources).view({-1, 3, 3}).sum(0, true)};
    }
    const auto g = gradients.to(at::kDouble), d = vectors.to(at::kDouble);
    auto by_r = at::zeros({frame.size(0), 3}, g.options());
    by_r.index_add_(0, idx_j, g).index_add_(0, idx_i, g, -1);
    // pairs of one frame are a product, which has no array of (pairs, 9)
    if (n_frames == 1) return {by_r, d.t().mm(g).unsqueeze(0)};
    const auto outer = at::zeros({n_frames, 3, 3}, g.options());
    return {by_r,
            outer.index_add(0, frame.index_select(0, idx_i), d.unsqueeze(2) * g.unsqueeze(1))};
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  for (const auto device : {c10::DispatchKey::CUDA, c10::DispatchKey::PrivateUse1}) {
    library.impl("long_pairs", torch::dispatch(device, So3k::long_pairs));
    library.impl("tally", torch::dispatch(device, So3k::tally));
  }
}
