/* so3k-md: forces and virial from the gradient of long-range pairs. MIT. */

#include "differentiable.h"
#include "operators.h"
#include "threads.h"

using at::Tensor;

namespace So3k {
namespace {

  constexpr int64_t LEAST_PAIRS = 8192;    // for which another thread pays

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
    const auto parts = parts_of(n_pairs, LEAST_PAIRS);
    const PartialSums<double> of_atoms(by_r, parts), of_frames(outer, parts);
    in_parts(parts, [&](int64_t part) {
      auto *atoms = of_atoms.of(part), *frames = of_frames.of(part);
      const auto end = bound(n_pairs, parts, part + 1);
      for (auto p = bound(n_pairs, parts, part); p < end;) {
        const auto here = i[p];
        double sum[3] = {}, w[9] = {};
        for (; p < end && i[p] == here; ++p) {
          auto *there = atoms + 3 * j[p];
          for (int b = 0; b < 3; ++b) {
            const double g_b = g[3 * p + b];
            there[b] += g_b;
            sum[b] += g_b;
            for (int a = 0; a < 3; ++a) w[3 * a + b] += d[3 * p + a] * g_b;
          }
        }
        for (int b = 0; b < 3; ++b) atoms[3 * here + b] -= sum[b];
        for (int k = 0; k < 9; ++k) frames[9 * of[here] + k] += w[k];
      }
    });
    of_atoms.add();
    of_frames.add();
  }

  std::tuple<Tensor, Tensor> tally(const Tensor &vectors, const Tensor &gradients,
                                   const Tensor &idx_i, const Tensor &idx_j, const Tensor &frame,
                                   int64_t n_frames)
  {
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

  std::tuple<Tensor, Tensor> shapes(const Tensor &vectors, const Tensor &, const Tensor &,
                                    const Tensor &, const Tensor &frame, int64_t n_frames)
  {
    const auto exact = vectors.options().dtype(at::kDouble);
    return {at::empty({frame.size(0), 3}, exact), at::empty({n_frames, 3, 3}, exact)};
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  using namespace So3k;
  library.def(operators::TALLY);
  library.impl("tally", torch::dispatch(c10::DispatchKey::CPU, tally));
  library.impl("tally", torch::dispatch(c10::DispatchKey::Meta, shapes));
}
