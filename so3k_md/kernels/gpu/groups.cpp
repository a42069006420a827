/* so3k-md: messages between atoms of a group that are near in SPHC space on a GPU, with their
 * adjoint. MIT. */

#include "groups.h"

#include "../cpu/differentiable.h"
#include "../cpu/sphc_arguments.h"
#include "filters.h"
#include "program.h"
#include "tensors.h"

using at::Tensor;
using torch::jit::Stack;

namespace So3k {
namespace {

  constexpr int64_t WARPS = 4;    // of device/warp.h

  using Call = SphcArguments;

  /// Tensors to which the arguments of the kernels point.
  struct Places {
    Tensor centre_of, place_of;    // see groups.h
    Tensor chi_of, steps, log_norm;

    explicit Places(const Call &of) :
        centre_of(at::full_like(of.members, -1)), place_of(),
        chi_of(of.chi_src.index_select(0, of.members).t().contiguous()),
        log_norm(at::empty({of.chi.size(0)}, of.chi.options()))
    {
      const auto options = of.members.options();
      const auto place = at::full({of.chi_src.size(0)}, -1, options)
                             .index_copy(0, of.members, at::arange(of.members.size(0), options));
      place_of = place.index_select(0, of.own);
      centre_of.index_copy_(0, place_of, at::arange(of.own.size(0), options));
      steps = joined(of.steps);
    }
  };

  Groups groups_of(const Call &of, const Places &places)
  {
    Groups groups{};
    groups.rows.centres = of.chi.size(0);
    groups.rows.q = floats(of.query), groups.rows.k = floats(of.key);
    groups.rows.chi = floats(of.chi), groups.rows.chi_src = floats(of.chi_src);
    groups.filters = filters_of(of);
    groups.members = of.members.size(0);
    groups.source = integers(of.members), groups.centre_of = integers(places.centre_of);
    groups.first = integers(of.first), groups.size = integers(of.size);
    groups.place_of = integers(places.place_of);
    groups.chi_of = floats(places.chi_of), groups.steps = floats(places.steps);
    groups.r = of.r.const_data_ptr<double>(), groups.r_src = of.r_src.const_data_ptr<double>();
    groups.log_norm = places.log_norm.mutable_data_ptr<float>();
    groups.temperature = static_cast<float>(of.temperature);
    groups.kappa = static_cast<float>(of.kappa);
    groups.direction = static_cast<float>(of.direction);
    groups.p = static_cast<int>(of.p);
    return groups;
  }

  void run(const Call &of, const char *kernel, const Groups &groups)
  {
    auto options = degree_options(of.degrees);
    for (const auto &option : {define("HEADS", 0), define("WIDE", 0),
                               define("NARROW", of.query.size(1) / of.n_degrees()),
                               define("HIDDEN", of.hidden_bias.size(0)),
                               define("RADIAL", of.table.size(2)), define("SQUARED", of.squared)})
      options.push_back(option);
    launch({"sphc.cu", options}, kernel, of.chi.device(), (groups.rows.centres + WARPS - 1) / WARPS,
           32 * WARPS, &groups);
  }

  void forward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const Call of(next);
    require_float(of.query);
    const Places places(of);
    const auto dchi = at::empty_like(of.chi);
    auto groups = groups_of(of, places);
    groups.dchi = dchi.data_ptr<float>();
    for (const auto *kernel : {"sphc_norms", "sphc_forward"}) run(of, kernel, groups);
    next.give({dchi});
  }

  void backward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const auto given = next.optional();
    const Call of(next);
    const auto g_dchi = or_zeros(given, of.chi);
    const Places places(of);
    const auto by_norm = at::empty_like(places.log_norm);
    // other atoms add to rows of sources that are no centres
    const SphcGradients g = {at::empty_like(of.query), at::zeros_like(of.key),
                             at::empty_like(of.chi),   at::zeros_like(of.chi_src),
                             at::empty_like(of.r),     at::zeros_like(of.r_src)};
    auto groups = groups_of(of, places);
    groups.rows.g_dchi = floats(g_dchi);
    groups.rows.g_q = g.query.data_ptr<float>(), groups.rows.g_k = g.key.data_ptr<float>();
    groups.rows.g_chi = g.chi.data_ptr<float>();
    groups.rows.g_chi_src = g.chi_src.data_ptr<float>();
    groups.g_r = g.r.data_ptr<double>(), groups.g_r_src = g.r_src.data_ptr<double>();
    groups.by_norm = by_norm.data_ptr<float>();
    for (const auto *kernel : {"sphc_norms", "sphc_backward", "sphc_norms_backward"})
      run(of, kernel, groups);
    next.give(g.list());
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  using namespace So3k;
  for (const auto device : {c10::DispatchKey::CUDA, c10::DispatchKey::PrivateUse1})
    implement_passes<&forward, &backward>(library, "sphc_attend", device);
}
