/* so3k-md: forces and virial from the gradient of long-range pairs. MIT. */

#include <ATen/ATen.h>
#include <torch/library.h>

#include "device.h"
#include "operators.h"

using at::Tensor;

namespace So3k {
namespace {

  /// Pairs are ordered by their first atom, whose sum stays in registers.
  template <typename T>
  void run(const Tensor &vectors, const Tensor &gradients, const Tensor &idx_i, const Tensor &idx_j,
           const Tensor &frame, Tensor &by_r, Tensor &outer)
  {
    const auto n_pairs = vectors.size(0);
    const auto *d = vectors.const_data_ptr<double>();
    const auto *g = gradients.const_data_ptr<T>();
    const auto *i = idx_i.const_data_ptr<int64_t>(), *j = idx_j.const_data_ptr<int64_t>();
    const auto *of = frame.const_data_ptr<int64_t>();
    auto *atoms = by_r.data_ptr<double>(), *frames = outer.data_ptr<double>();
    for (int64_t p = 0; p < n_pairs;) {
      const auto here = i[p];
      double sum[3] = {}, w[9] = {};
      for (; p < n_pairs && i[p] == here; ++p) {
        auto *atom_j = atoms + 3 * j[p];
        for (int b = 0; b < 3; ++b) {
          const double g_b = g[3 * p + b];
          atom_j[b] += g_b;
          sum[b] += g_b;
          for (int a = 0; a < 3; ++a) w[3 * a + b] += d[3 * p + a] * g_b;
        }
      }
      for (int b = 0; b < 3; ++b) atoms[3 * here + b] -= sum[b];
      for (int k = 0; k < 9; ++k) frames[9 * of[here] + k] += w[k];
    }
  }

  std::tuple<Tensor, Tensor> tally(const Tensor &vectors, const Tensor &gradients,
                                   const Tensor &idx_i, const Tensor &idx_j, const Tensor &frame,
                                   int64_t n_frames)
  {
    require_cpu(vectors);
    const auto exact = vectors.options().dtype(at::kDouble);
    auto by_r = at::zeros({frame.size(0), 3}, exact), outer = at::zeros({n_frames, 3, 3}, exact);
    const auto d = vectors.to(at::kDouble).contiguous(), g = gradients.contiguous();
    const auto i = idx_i.contiguous(), j = idx_j.contiguous(), f = frame.contiguous();
    if (g.scalar_type() == at::kFloat)
      run<float>(d, g, i, j, f, by_r, outer);
    else
      run<double>(d, g, i, j, f, by_r, outer);
    return {by_r, outer};
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  library.def(So3k::operators::TALLY, So3k::tally);
}
