/* so3k-md: messages of one layer between neighbors on a GPU, with their adjoint. MIT.
 *
 * Queries, keys and values of all atoms are products of the library; device/near.cu computes the
 * messages. Pairs are listed in both directions in the order of their centres, and the first
 * sources are the centres. */

#include "../cpu/attend_arguments.h"

#include <initializer_list>
#include <utility>
#include <vector>

#include "../cpu/differentiable.h"
#include "../cpu/operators.h"
#include "filters.h"
#include "near.h"
#include "program.h"
#include "tensors.h"

using at::Tensor;
using torch::jit::Stack;

namespace So3k {
namespace {

  constexpr int64_t WARPS = 4, LARGEST_DEGREE = 5;    // of device/warp.h and device/tile.h

  using Call = AttendArguments;
  using Rows = AttendRows;
  using Gradients = AttendGradients;

  void require_supported(const Call &of)
  {
    require_float(of.x);
    TORCH_CHECK(
        of.back.numel() == 0,
        "[so3k] the kernels for GPUs need each pair in both directions: evaluate the model on the "
        "device for which its form was made");
    for (const auto degree : of.degrees)
      TORCH_CHECK(degree <= LARGEST_DEGREE, "[so3k] the kernels for GPUs have degrees up to ",
                  LARGEST_DEGREE, ", the model has ", degree, ": use kernels = off");
  }

  /// Columns of a head of features, filled up with zeros.
  int64_t padded(const Call &of)
  {
    return of.value_bias.size(0) / of.heads;
  }

  Tensor widened(const Call &of, const Tensor &rows)
  {
    const auto extra = padded(of) - of.wide();
    if (extra == 0) return rows.contiguous();
    return at::constant_pad_nd(rows.reshape({-1, of.heads, of.wide()}), {0, extra}).flatten(1);
  }

  Tensor narrowed(const Call &of, const Tensor &rows)
  {
    if (padded(of) == of.wide()) return rows;
    return rows.view({-1, of.heads, padded(of)}).narrow(2, 0, of.wide()).flatten(1).contiguous();
  }

  Program program_of(const Call &of)
  {
    const auto features = of.value_bias.size(0);
    auto options = degree_options(of.degrees);
    for (const auto &[name, value] : std::initializer_list<std::pair<const char *, int64_t>>{
             {"HEADS", of.heads},
             {"WIDE", padded(of)},
             {"NARROW", (of.query_bias.size(0) - features) / of.n_degrees()},
             {"HIDDEN", of.hidden_bias.size(0) / 2},
             {"RADIAL", of.table.size(2)},
             {"SQUARED", of.squared}})
      options.push_back(define(name, value));
    return {"near.cu", options};
  }

  Rows rows_of(const Call &of)
  {
    return {at::addmm(of.query_bias, of.x, of.query), at::addmm(of.key_bias, of.x_src, of.key),
            at::addmm(of.value_bias, of.x_src, of.value)};
  }

  Near near_of(const Call &of, const Rows &rows, const Tensor &first)
  {
    Near near{};
    near.rows.centres = of.x.size(0);
    near.rows.q = floats(rows.q), near.rows.k = floats(rows.k), near.rows.v = floats(rows.v);
    near.rows.chi = floats(of.chi), near.rows.chi_src = floats(of.chi_src);
    near.filters = filters_of(of);
    near.first = integers(first);
    near.j = integers(of.idx_j);
    near.r = floats(of.r), near.cut = floats(of.cut), near.ylm = floats(of.ylm);
    return near;
  }

  void run(const Call &of, const char *kernel, const Near &near)
  {
    launch(program_of(of), kernel, of.x.device(), (near.rows.centres + WARPS - 1) / WARPS,
           32 * WARPS, &near);
  }

  void forward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const Call of(next);
    require_supported(of);
    const auto rows = rows_of(of);
    const auto first = at::searchsorted(of.idx_i, at::arange(of.x.size(0) + 1, of.idx_i.options()));
    const auto dx = at::empty({of.x.size(0), rows.v.size(1)}, of.x.options());
    const auto dchi = at::empty_like(of.chi);
    auto near = near_of(of, rows, first);
    near.dx = dx.data_ptr<float>(), near.dchi = dchi.data_ptr<float>();
    run(of, "near_forward", near);
    // rows are made again in the backward pass, because those of all layers take too much memory
    const auto none = at::empty({0}, of.x.options());
    next.give({narrowed(of, dx), dchi, none, at::empty_like(none), at::empty_like(none), first});
  }

  void backward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const auto given_dx = next.optional(), given_dchi = next.optional();
    for (int k = 0; k < 3; ++k) next.tensor();    // the rows, which only a CPU keeps
    const auto first = next.tensor();
    const Call of(next);
    const auto rows = rows_of(of);
    const auto g_dx = widened(of, or_zeros(given_dx, of.x)), g_dchi = or_zeros(given_dchi, of.chi);
    // other atoms add to rows of sources that are no centres
    const Rows g_rows = {at::empty_like(rows.q), at::zeros_like(rows.k), at::zeros_like(rows.v)};
    Gradients g = {{},
                   at::empty_like(of.chi),
                   {},
                   at::zeros_like(of.chi_src),
                   at::empty_like(of.r),
                   at::empty_like(of.cut),
                   at::empty_like(of.ylm)};
    auto near = near_of(of, rows, first);
    near.rows.g_dx = floats(g_dx), near.rows.g_dchi = floats(g_dchi);
    near.rows.g_q = g_rows.q.data_ptr<float>(), near.rows.g_k = g_rows.k.data_ptr<float>();
    near.rows.g_v = g_rows.v.data_ptr<float>(), near.rows.g_chi = g.chi.data_ptr<float>();
    near.rows.g_chi_src = g.chi_src.data_ptr<float>(), near.g_r = g.r.data_ptr<float>();
    near.g_cut = g.cut.data_ptr<float>(), near.g_ylm = g.ylm.data_ptr<float>();
    run(of, "near_backward", near);
    g.x = g_rows.q.mm(of.query.t());
    g.x_src = g_rows.k.mm(of.key.t()).addmm_(g_rows.v, of.value.t());
    next.give(g.list());
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  using namespace So3k;
  for (const auto device : {c10::DispatchKey::CUDA, c10::DispatchKey::PrivateUse1})
    implement_passes<&forward, &backward>(library, "attend", device);
}
