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

  std::tuple<Tensor, Tensor, Tensor, Tensor>
  long_pairs(const Tensor &vectors, const Tensor &idx_i, const Tensor &idx_j, const Tensor &species,
             const Tensor &q, const Tensor &h, const Tensor &alpha, const Tensor &v, bool coulomb,
             double cutoff, double taper, double ke, double bohr, double hartree)
  {
    require_float(q);
    const auto d = vectors.to(at::kDouble).contiguous(), i = idx_i.contiguous(),
               j = idx_j.contiguous();
    const auto free = alpha.index_select(0, species).to(at::kFloat), of_alpha = free * h;
    const auto of_v = v.index_select(0, species).to(at::kFloat), charge = q.contiguous();
    const auto gradients = at::empty({d.size(0), 3}, q.options());
    const auto sums = at::zeros({3, q.size(0)}, q.options().dtype(at::kDouble));
    LongRangePairs pairs{};
    pairs.pairs = d.size(0), pairs.rows = q.size(0);
    pairs.vectors = d.const_data_ptr<double>();
    pairs.i = integers(i), pairs.j = integers(j);
    pairs.alpha = of_alpha.const_data_ptr<float>(), pairs.v = of_v.const_data_ptr<float>();
    pairs.charge = charge.const_data_ptr<float>();
    pairs.gradients = gradients.data_ptr<float>(), pairs.sums = sums.data_ptr<double>();
    pairs.constants = {cutoff, taper, ke, bohr, hartree, coulomb};
    launch({"long_pairs.cu", {}}, "long_pairs", q.device(), (pairs.pairs + THREADS - 1) / THREADS,
           THREADS, &pairs);
    const auto phi = sums[0], psi = sums[1];
    const auto energies = 0.5 * at::stack({q * phi, of_alpha * psi}, 1);
    return {energies, gradients, phi.to(at::kFloat), free * (psi + sums[2]).to(at::kFloat)};
  }

  /// Forces and virial from the gradients of pairs.
  std::tuple<Tensor, Tensor> tally(const Tensor &vectors, const Tensor &gradients,
                                   const Tensor &idx_i, const Tensor &idx_j, const Tensor &frame,
                                   int64_t n_frames)
  {
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
