/* so3k-md: values of atoms shifted to the given totals of their fragments. MIT. */

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

#include <vector>

#include "differentiable.h"
#include "operators.h"

using at::Tensor;

namespace So3k {
namespace {

  Tensor conserve(const Tensor &values, const Tensor &total, const Tensor &fragment)
  {
    const auto given = values.contiguous(), of = fragment.contiguous();
    const auto wanted = total.to(at::kDouble).contiguous(), found = at::empty_like(given);
    const auto n_atoms = given.size(0), n_fragments = wanted.size(0);
    const auto *to = of.const_data_ptr<int64_t>();
    const double *sum = wanted.const_data_ptr<double>();
    std::vector<double> lacks(sum, sum + n_fragments), atoms(n_fragments, 0.0);
    AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "so3k::conserve", [&] {
      const auto *from = given.const_data_ptr<scalar_t>();
      auto *shifted = found.data_ptr<scalar_t>();
      for (int64_t n = 0; n < n_atoms; ++n) {
        lacks[to[n]] -= static_cast<double>(from[n]);
        atoms[to[n]] += 1;
      }
      for (int64_t n = 0; n < n_atoms; ++n)
        shifted[n] = from[n] + static_cast<scalar_t>(lacks[to[n]] / atoms[to[n]]);
    });
    return found;
  }

  Tensor shapes(const Tensor &values, const Tensor &, const Tensor &)
  {
    return at::empty_like(values);
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  using namespace So3k;
  library.def(operators::CONSERVE);
  library.impl("conserve", torch::dispatch(c10::DispatchKey::CPU, conserve));
  library.impl("conserve", torch::dispatch(c10::DispatchKey::Meta, shapes));
  refuse_others(library, "conserve");
}
