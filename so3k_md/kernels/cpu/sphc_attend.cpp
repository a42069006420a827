/* so3k-md: messages of one layer between atoms of a group that are near in SPHC
 * space, with their adjoint. Each pair is computed once for both directions, and
 * again in the backward pass: memory is linear in atoms. MIT. */

#include <vector>

#include "differentiable.h"
#include "operators.h"
#include "sphc_arguments.h"
#include "sphc_tile.h"
#include "threads.h"

using at::Tensor;
using torch::jit::Stack;

namespace So3k {
namespace {

  constexpr int64_t LEAST_MEMBERS = 4096;    // pairs of members for which another thread pays

  using Call = SphcArguments;
  using Gradients = SphcGradients;

  /// The tensors of a call in the form of the kernel; `chi_of` must outlive it.
  template <typename T> Sphc<T> sphc_of(const Call &of, const Tensor &chi_of)
  {
    Sphc<T> sphc{Invariants<T>(of.degrees, of.squared, of.norm_eps)};
    sphc.width = of.query.size(1);
    sphc.hidden = of.hidden_bias.size(0);
    sphc.orders = of.chi.size(1);
    sphc.degrees = static_cast<int64_t>(of.degrees.size());
    sphc.centres = of.chi.size(0);
    sphc.members = of.members.size(0);
    sphc.query = of.query.const_data_ptr<T>();
    sphc.key = of.key.const_data_ptr<T>();
    sphc.chi = of.chi.const_data_ptr<T>();
    sphc.chi_of = chi_of.const_data_ptr<T>();
    sphc.r = of.r.const_data_ptr<double>();
    sphc.r_src = of.r_src.const_data_ptr<double>();
    sphc.source = of.members.const_data_ptr<int64_t>();
    sphc.first = of.first.const_data_ptr<int64_t>();
    sphc.size = of.size.const_data_ptr<int64_t>();
    sphc.own = of.own.const_data_ptr<int64_t>();
    std::vector<int64_t> place(of.chi_src.size(0), -1);
    for (int64_t n = 0; n < sphc.members; ++n) place[sphc.source[n]] = n;
    sphc.centre_of.assign(sphc.members, -1);
    for (int64_t i = 0; i < sphc.centres; ++i) {
      sphc.place_of.push_back(place[sphc.own[i]]);
      sphc.centre_of[sphc.place_of[i]] = i;
    }
    sphc.into = of.hidden.const_data_ptr<T>();
    sphc.bias = of.hidden_bias.const_data_ptr<T>();
    sphc.out = of.out.const_data_ptr<T>();
    sphc.transposed = of.out_transposed.const_data_ptr<T>();
    sphc.shift = of.shift.const_data_ptr<T>();
    sphc.table = {of.table.const_data_ptr<T>(), static_cast<T>(of.cutoff / of.table.size(0)),
                  of.table.size(0), of.table.size(2)};
    for (int64_t n = 0; n < sphc.degrees; ++n) {
      const auto degree = of.degrees[n];
      for (int64_t m = 0; m < 2 * degree + 1; ++m) {
        sphc.degree_of.push_back(n);
        sphc.sign.push_back(degree % 2 ? T(-1) : T(1));
      }
    }
    sphc.p = of.p;
    sphc.cutoff = static_cast<T>(of.cutoff);
    sphc.temperature = static_cast<T>(of.temperature);
    sphc.kappa = static_cast<T>(of.kappa);
    sphc.direction = static_cast<T>(of.direction);
    return sphc;
  }

  /// SPHCs of the members, a row for each order.
  Tensor ordered(const Tensor &chi_src, const Tensor &members)
  {
    return chi_src.index_select(0, members).t().contiguous();
  }

  template <typename T> SphcTile<T> tile_of(const Sphc<T> &sphc, const Call &of)
  {
    std::vector<const T *> steps;
    for (const auto &step : of.steps) steps.push_back(step.const_data_ptr<T>());
    return SphcTile<T>(sphc, steps, of.degrees);
  }

  template <typename T> int64_t parts_of(const Sphc<T> &sphc)
  {
    int64_t pairs = 0;
    for (int64_t i = 0; i < sphc.centres; ++i) pairs += sphc.size[i];
    return std::min(So3k::parts_of(pairs, LEAST_MEMBERS), std::max<int64_t>(1, sphc.centres));
  }

  /// The norm of the softmax of each centre.
  template <typename T> std::vector<T> norms_of(const Sphc<T> &sphc, int64_t parts)
  {
    std::vector<T> norms(sphc.centres);
    in_parts(parts, [&](int64_t part) {
      Rows<T> rows(sphc, norms.data());
      for (auto i = part; i < sphc.centres; i += parts) rows.find_norm(i);
    });
    return norms;
  }

  template <typename T> void send_all(const Call &of, const Tensor &dchi)
  {
    const auto chi_of = ordered(of.chi_src, of.members);
    const auto sphc = sphc_of<T>(of, chi_of);
    const auto parts = parts_of(sphc);
    auto norms = norms_of(sphc, parts);
    const PartialSums<T> sums(dchi, parts);
    in_parts(parts, [&](int64_t part) {
      auto tile = tile_of(sphc, of);
      Rows<T> rows(sphc, norms.data());
      each_tile(sphc, rows, part, parts, SphcTile<T>::SIZE,
                [&](const auto &pairs) { tile.send(pairs, sums.of(part)); });
    });
    sums.add();
  }

  Gradients new_gradients(const Call &of)
  {
    return {at::zeros_like(of.query),   at::zeros_like(of.key), at::zeros_like(of.chi),
            at::zeros_like(of.chi_src), at::zeros_like(of.r),   at::zeros_like(of.r_src)};
  }

  template <typename T> void send_all_back(const Call &of, const Tensor &g_dchi, Gradients &g)
  {
    const auto chi_of = ordered(of.chi_src, of.members), g_chi_of = at::zeros_like(chi_of);
    const auto sphc = sphc_of<T>(of, chi_of);
    const auto parts = parts_of(sphc);
    auto norms = norms_of(sphc, parts);
    const auto of_norm = at::zeros({sphc.centres}, of.query.options());
    const PartialSums<T> query(g.query, parts), key(g.key, parts), chi(g.chi, parts),
        members(g_chi_of, parts), norm(of_norm, parts);
    const PartialSums<double> r(g.r, parts), r_src(g.r_src, parts);
    in_parts(parts, [&](int64_t part) {
      auto tile = tile_of(sphc, of);
      Rows<T> rows(sphc, norms.data());
      SphcGradient<T> to = {
          g_dchi.const_data_ptr<T>(), query.of(part), key.of(part),   chi.of(part),
          members.of(part),           r.of(part),     r_src.of(part), norm.of(part)};
      each_tile(sphc, rows, part, parts, SphcTile<T>::SIZE,
                [&](const auto &pairs) { tile.send_back(pairs, to); });
    });
    norm.add();
    const T *by_norm = of_norm.template const_data_ptr<T>();
    in_parts(parts, [&](int64_t part) {
      Rows<T> rows(sphc, norms.data());
      for (auto i = part; i < sphc.centres; i += parts)
        rows.adjoint(i, by_norm[i], chi.of(part), members.of(part));
    });
    for (const auto *sums : {&query, &key, &chi, &members}) sums->add();
    r.add();
    r_src.add();
    g.chi_src.index_add_(0, of.members, g_chi_of.t());
  }

  void forward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const Call of(next);
    TORCH_CHECK(static_cast<int64_t>(of.degrees.size()) <= MAX_HEADS, "[so3k] the model has ",
                of.degrees.size(), " degrees, the kernels support at most ", MAX_HEADS,
                ": use kernels = off");
    const auto dchi = at::zeros_like(of.chi);
    AT_DISPATCH_FLOATING_TYPES(of.query.scalar_type(), "so3k::sphc_attend_forward",
                               [&] { send_all<scalar_t>(of, dchi); });
    next.give({dchi});
  }

  void forward_shapes(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    next.give({at::empty_like(Call(next).chi)});
  }

  void backward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const auto given = next.optional();
    const Call of(next);
    const auto g_dchi = or_zeros(given, of.chi);
    auto g = new_gradients(of);
    AT_DISPATCH_FLOATING_TYPES(of.query.scalar_type(), "so3k::sphc_attend_backward",
                               [&] { send_all_back<scalar_t>(of, g_dchi, g); });
    next.give(g.list());
  }

  void backward_shapes(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    next.optional();
    const auto g = new_gradients(Call(next));
    next.give(g.list());
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  using namespace So3k;
  define_differentiable(library, operators::SPHC_ATTEND, 0, 6);
  implement_passes<&forward, &backward>(library, "sphc_attend", c10::DispatchKey::CPU);
  implement_passes<&forward_shapes, &backward_shapes>(library, "sphc_attend",
                                                      c10::DispatchKey::Meta);
}
