/* so3k-md: messages of one layer between neighbors, pair by pair in the cache, with their adjoint.
 * MIT. */

#include <algorithm>
#include <memory>
#include <vector>

#include "attend_arguments.h"
#include "differentiable.h"
#include "heads.h"
#include "near.h"
#include "operators.h"
#include "threads.h"

using at::Tensor;
using torch::jit::Stack;

namespace So3k {
namespace {

  constexpr int64_t LEAST_PAIRS = 256, LEAST_ROWS = 64;    // for which another thread pays

  using Call = AttendArguments;
  using Rows = AttendRows;
  using Gradients = AttendGradients;

  template <typename T> void fill_rows(const Call &of, Rows &rows)
  {
    const auto F = of.width(), wide = of.wide(), narrow = of.narrow();
    const auto heads = of.heads, degrees = of.n_degrees(), of_heads = F * wide;
    const T *x = of.x.const_data_ptr<T>(), *x_src = of.x_src.const_data_ptr<T>();
    const T *query = of.query.const_data_ptr<T>(), *key = of.key.const_data_ptr<T>();
    const T *q_bias = of.query_bias.const_data_ptr<T>(), *k_bias = of.key_bias.const_data_ptr<T>();
    T *q = rows.q.data_ptr<T>(), *k = rows.k.data_ptr<T>(), *v = rows.v.data_ptr<T>();
    in_ranges(of.x.size(0), LEAST_ROWS, [&](int64_t first, int64_t last) {
      const auto n = last - first;
      T *to = q + first * 2 * F;
      by_head(x + first * F, F, query, q_bias, heads, wide, to, 2 * F, n);
      by_head(x + first * F, F, query + of_heads, q_bias + F, degrees, narrow, to + F, 2 * F, n);
    });
    in_ranges(of.x_src.size(0), LEAST_ROWS, [&](int64_t first, int64_t last) {
      const auto n = last - first;
      const T *from = x_src + first * F;
      T *to = k + first * 2 * F;
      by_head(from, F, key, k_bias, heads, wide, to, 2 * F, n);
      by_head(from, F, key + of_heads, k_bias + F, degrees, narrow, to + F, 2 * F, n);
      by_head(from, F, of.value.const_data_ptr<T>(), of.value_bias.const_data_ptr<T>(), heads, wide,
              v + first * F, F, n);
    });
  }

  /// Adds the contributions of queries, keys and values to the derivatives by the features.
  template <typename T>
  void rows_adjoint(const Rows &g, const Call &of, Tensor &g_x, Tensor &g_x_src)
  {
    const auto F = of.width(), wide = of.wide(), narrow = of.narrow();
    const auto heads = of.heads, degrees = of.n_degrees();
    const T *query = of.transposed.const_data_ptr<T>(), *query_chi = query + F * wide;
    const T *key = query_chi + F * narrow, *key_chi = key + F * wide;
    const T *value = key_chi + F * narrow;
    const T *q = g.q.const_data_ptr<T>(), *k = g.k.const_data_ptr<T>();
    const T *v = g.v.const_data_ptr<T>();
    T *x = g_x.data_ptr<T>(), *x_src = g_x_src.data_ptr<T>();
    in_ranges(g_x.size(0), LEAST_ROWS, [&](int64_t first, int64_t last) {
      const auto n = last - first;
      const T *from = q + first * 2 * F;
      by_head_adjoint(from, 2 * F, query, heads, wide, x + first * F, F, n);
      by_head_adjoint(from + F, 2 * F, query_chi, degrees, narrow, x + first * F, F, n);
    });
    in_ranges(g_x_src.size(0), LEAST_ROWS, [&](int64_t first, int64_t last) {
      const auto n = last - first;
      const T *from = k + first * 2 * F;
      T *to = x_src + first * F;
      by_head_adjoint(from, 2 * F, key, heads, wide, to, F, n);
      by_head_adjoint(from + F, 2 * F, key_chi, degrees, narrow, to, F, n);
      by_head_adjoint(v + first * F, F, value, heads, wide, to, F, n);
    });
  }

  template <typename T> Layer<T> layer_of(const Call &of, const Rows &rows)
  {
    Layer<T> layer;
    layer.width = of.width();
    layer.heads = of.heads;
    layer.orders = of.ylm.size(1);
    layer.degrees = of.n_degrees();
    layer.q = rows.q.const_data_ptr<T>();
    layer.k = rows.k.const_data_ptr<T>();
    layer.v = rows.v.const_data_ptr<T>();
    layer.chi = of.chi.const_data_ptr<T>();
    layer.chi_src = of.chi_src.const_data_ptr<T>();
    layer.r = of.r.const_data_ptr<T>();
    layer.cut = of.cut.const_data_ptr<T>();
    layer.ylm = of.ylm.const_data_ptr<T>();
    layer.table = {of.table.const_data_ptr<T>(), static_cast<T>(of.cutoff / of.table.size(0)),
                   of.table.size(0), of.table.size(2)};
    layer.i = of.idx_i.const_data_ptr<int64_t>();
    layer.j = of.idx_j.const_data_ptr<int64_t>();
    layer.back = of.back.const_data_ptr<bool>();
    layer.order.push_back(0);
    for (const auto degree : of.degrees) {
      layer.order.push_back(layer.order.back() + 2 * degree + 1);
      layer.sign.push_back(degree % 2 ? T(-1) : T(1));
    }
    return layer;
  }

  template <typename T> NearFilters<T> filters_of(const Layer<T> &layer, const Call &of)
  {
    return {layer,
            {of.degrees, of.squared, of.norm_eps},
            {of.hidden.const_data_ptr<T>(), of.hidden_bias.const_data_ptr<T>(),
             of.out.const_data_ptr<T>(), of.out_transposed.const_data_ptr<T>(), layer.degrees,
             of.out.size(1), layer.width, 2}};
  }

  /// work(filters, first, last) for the tiles of one part of the pairs.
  template <typename T, typename Work>
  void each_tile(const Layer<T> &layer, const Call &of, int64_t parts, int64_t part, Work work)
  {
    auto filters = filters_of(layer, of);
    const auto n_pairs = of.r.size(0), end = bound(n_pairs, parts, part + 1);
    for (auto first = bound(n_pairs, parts, part); first < end; first += filters.SIZE)
      work(filters, first, std::min(first + filters.SIZE, end));
  }

  /// Room for the filters of a tile of pairs, which `evaluate` or `send_back` fills.
  template <typename T> std::unique_ptr<T[]> filters_of_tile(const Call &of)
  {
    const auto pairs = std::min(NearFilters<T>::SIZE, of.r.size(0));
    return std::unique_ptr<T[]>(new T[pairs * 2 * of.width()]);
  }

  template <typename T>
  void send_all(const Call &of, const Rows &rows, const Tensor &dx, const Tensor &dchi)
  {
    const auto layer = layer_of<T>(of, rows);
    const auto parts = parts_of(of.r.size(0), LEAST_PAIRS);
    const PartialSums<T> x(dx, parts), chi(dchi, parts);
    in_parts(parts, [&](int64_t part) {
      const auto w = filters_of_tile<T>(of);
      each_tile(layer, of, parts, part, [&](auto &filters, int64_t first, int64_t last) {
        filters.evaluate(first, last, w.get());
        for (auto p = first; p < last; ++p) {
          const auto *row = w.get() + (p - first) * 2 * layer.width;
          if (layer.back[p])
            send<T, true>(layer, p, row, x.of(part), chi.of(part));
          else
            send<T, false>(layer, p, row, x.of(part), chi.of(part));
        }
      });
    });
    x.add();
    chi.add();
  }

  template <typename T>
  void send_all_back(const Call &of, const Rows &rows, const Tensor &g_dx, const Tensor &g_dchi,
                     Gradients &g)
  {
    const auto layer = layer_of<T>(of, rows);
    const auto F = layer.width, parts = parts_of(of.r.size(0), LEAST_PAIRS);
    const Rows g_rows = {at::zeros_like(rows.q), at::zeros_like(rows.k), at::zeros_like(rows.v)};
    const PartialSums<T> q(g_rows.q, parts), k(g_rows.k, parts), v(g_rows.v, parts);
    const PartialSums<T> chi(g.chi, parts), chi_src(g.chi_src, parts);
    in_parts(parts, [&](int64_t part) {
      const LayerGradient<T> to = {q.of(part),
                                   k.of(part),
                                   v.of(part),
                                   g.cut.data_ptr<T>(),
                                   g.ylm.data_ptr<T>(),
                                   g_dx.const_data_ptr<T>(),
                                   g_dchi.const_data_ptr<T>()};
      const auto w = filters_of_tile<T>(of), g_w = filters_of_tile<T>(of);
      each_tile(layer, of, parts, part, [&](auto &filters, int64_t first, int64_t last) {
        filters.evaluate(first, last, w.get());
        for (auto p = first; p < last; ++p) {
          const auto *row = w.get() + (p - first) * 2 * F;
          auto *g_row = g_w.get() + (p - first) * 2 * F;
          if (layer.back[p])
            send_back<T, true>(layer, p, row, g_row, to);
          else
            send_back<T, false>(layer, p, row, g_row, to);
        }
        filters.adjoint(first, last, g_w.get(), g.r.data_ptr<T>(), chi.of(part), chi_src.of(part));
      });
    });
    for (const auto *sums : {&q, &k, &v, &chi, &chi_src}) sums->add();
    rows_adjoint<T>(g_rows, of, g.x, g.x_src);
  }

  /// The first pair of each centre, which only GPUs read.
  Tensor no_first(const Call &of)
  {
    return at::empty({0}, of.idx_i.options());
  }

  void forward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const Call of(next);
    TORCH_CHECK(of.query.dim() == 1,
                "[so3k] this form of the model is for GPUs, but its tensors are on a CPU: "
                "move the model, or load it with device = cpu");
    auto rows = empty_rows(of);
    const auto dx = at::zeros_like(of.x), dchi = at::zeros_like(of.chi);
    AT_DISPATCH_FLOATING_TYPES(of.x.scalar_type(), "so3k::attend_forward", [&] {
      fill_rows<scalar_t>(of, rows);
      send_all<scalar_t>(of, rows, dx, dchi);
    });
    next.give({dx, dchi, rows.q, rows.k, rows.v, no_first(of)});
  }

  void forward_shapes(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const Call of(next);
    const auto rows = empty_rows(of);
    next.give({at::empty_like(of.x), at::empty_like(of.chi), rows.q, rows.k, rows.v, no_first(of)});
  }

  Gradients new_gradients(const Call &of)
  {
    return {at::zeros_like(of.x),       at::zeros_like(of.chi), at::zeros_like(of.x_src),
            at::zeros_like(of.chi_src), at::empty_like(of.r),   at::empty_like(of.cut),
            at::empty_like(of.ylm)};
  }

  void backward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const auto given_dx = next.optional(), given_dchi = next.optional();
    const Rows rows = {next.tensor(), next.tensor(), next.tensor()};
    next.tensor();    // first pair of each centre, of GPUs
    const Call of(next);
    const auto g_dx = or_zeros(given_dx, of.x), g_dchi = or_zeros(given_dchi, of.chi);
    auto g = new_gradients(of);
    AT_DISPATCH_FLOATING_TYPES(of.x.scalar_type(), "so3k::attend_backward",
                               [&] { send_all_back<scalar_t>(of, rows, g_dx, g_dchi, g); });
    next.give(g.list());
  }

  void backward_shapes(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    for (int k = 0; k < 2; ++k) next.optional();
    for (int k = 0; k < 4; ++k) next.tensor();
    const Call of(next);
    const auto g = new_gradients(of);
    next.give(g.list());
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  using namespace So3k;
  define_differentiable(library, operators::ATTEND, 4, 7);
  implement_passes<&forward, &backward>(library, "attend", c10::DispatchKey::CPU);
  implement_passes<&forward_shapes, &backward_shapes>(library, "attend", c10::DispatchKey::Meta);
}
