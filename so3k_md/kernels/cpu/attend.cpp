/* so3k-md: messages of one layer between neighbors, pair by pair in the cache, with their adjoint.
 * MIT. */

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "device.h"
#include "heads.h"
#include "near.h"
#include "operators.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace So3k {
namespace {

  /// Inputs with derivatives.
  struct Inputs {
    Tensor x, chi, x_src, chi_src, r, cut, ylm;

    Inputs contiguous() const
    {
      return {x.contiguous(), chi.contiguous(), x_src.contiguous(), chi_src.contiguous(),
              r.contiguous(), cut.contiguous(), ylm.contiguous()};
    }
  };

  /// Linear maps of the heads of features and of degrees, each with its transpose.
  struct Maps {
    Tensor query_x, query_chi, key_x, key_chi, value;
  };

  /// Inputs without derivatives, in the order of the call.
  struct Constants {
    Tensor idx_i, idx_j, back;
    Maps maps, transposed;
    Tensor query_bias, key_bias, value_bias;
    Tensor into, bias, out, out_transposed, table;    // of the filters
    double width, eps;
    std::vector<int64_t> degrees;
    bool squared;    // invariants: ‖χ‖² / √(2l + 1) instead of ‖χ‖
  };

  constexpr size_t N_TENSORS = 21;

  Constants constants_of(const std::vector<Tensor> &t, const std::vector<double> &numbers,
                         const std::vector<int64_t> &degrees, bool squared)
  {
    TORCH_CHECK(t.size() == N_TENSORS && numbers.size() == 2,
                "[so3k] the model file has constants of another version of the kernels: export the "
                "model again");
    return {t[0],
            t[1],
            t[2],
            {t[3], t[4], t[5], t[6], t[7]},
            {t[8], t[9], t[10], t[11], t[12]},
            t[13],
            t[14],
            t[15],
            t[16],
            t[17],
            t[18],
            t[19],
            t[20],
            numbers[0],
            numbers[1],
            degrees,
            squared};
  }

  /// Queries of the centres, keys and values of the sources.
  struct Rows {
    Tensor q, k, v;
  };

  template <typename T> Rows rows_of(const Inputs &in, const Constants &of)
  {
    const auto F = in.x.size(1), n = in.x.size(0), m = in.x_src.size(0);
    const auto heads = of.maps.value.size(0), degrees = of.maps.query_chi.size(0);
    Rows rows = {at::empty({n, 2 * F}, in.x.options()), at::empty({m, 2 * F}, in.x.options()),
                 at::empty({m, F}, in.x.options())};
    const T *x = in.x.const_data_ptr<T>(), *x_src = in.x_src.const_data_ptr<T>();
    T *q = rows.q.data_ptr<T>(), *k = rows.k.data_ptr<T>();
    const T *q_bias = of.query_bias.const_data_ptr<T>(), *k_bias = of.key_bias.const_data_ptr<T>();
    const auto wide = F / heads, narrow = F / degrees;
    by_head(x, F, of.maps.query_x.const_data_ptr<T>(), q_bias, heads, wide, q, 2 * F, n);
    by_head(x, F, of.maps.query_chi.const_data_ptr<T>(), q_bias + F, degrees, narrow, q + F, 2 * F,
            n);
    by_head(x_src, F, of.maps.key_x.const_data_ptr<T>(), k_bias, heads, wide, k, 2 * F, m);
    by_head(x_src, F, of.maps.key_chi.const_data_ptr<T>(), k_bias + F, degrees, narrow, k + F,
            2 * F, m);
    by_head(x_src, F, of.maps.value.const_data_ptr<T>(), of.value_bias.const_data_ptr<T>(), heads,
            wide, rows.v.data_ptr<T>(), F, m);
    return rows;
  }

  /// Adds the contributions of queries, keys and values to the derivatives by the features.
  template <typename T>
  void rows_adjoint(const Rows &g, const Constants &of, Tensor &g_x, Tensor &g_x_src)
  {
    const auto F = g_x.size(1), n = g_x.size(0), m = g_x_src.size(0);
    const auto heads = of.maps.value.size(0), degrees = of.maps.query_chi.size(0);
    const T *q = g.q.const_data_ptr<T>(), *k = g.k.const_data_ptr<T>();
    T *x = g_x.data_ptr<T>(), *x_src = g_x_src.data_ptr<T>();
    const auto wide = F / heads, narrow = F / degrees;
    const auto &back = of.transposed;
    by_head_adjoint(q, 2 * F, back.query_x.const_data_ptr<T>(), heads, wide, x, F, n);
    by_head_adjoint(q + F, 2 * F, back.query_chi.const_data_ptr<T>(), degrees, narrow, x, F, n);
    by_head_adjoint(k, 2 * F, back.key_x.const_data_ptr<T>(), heads, wide, x_src, F, m);
    by_head_adjoint(k + F, 2 * F, back.key_chi.const_data_ptr<T>(), degrees, narrow, x_src, F, m);
    by_head_adjoint(g.v.const_data_ptr<T>(), F, back.value.const_data_ptr<T>(), heads, wide, x_src,
                    F, m);
  }

  template <typename T> Layer<T> layer_of(const Inputs &in, const Constants &of, const Rows &rows)
  {
    Layer<T> layer;
    layer.width = in.x.size(1);
    layer.heads = of.maps.value.size(0);
    layer.orders = in.ylm.size(1);
    layer.degrees = static_cast<int64_t>(of.degrees.size());
    layer.q = rows.q.const_data_ptr<T>();
    layer.k = rows.k.const_data_ptr<T>();
    layer.v = rows.v.const_data_ptr<T>();
    layer.chi = in.chi.const_data_ptr<T>();
    layer.chi_src = in.chi_src.const_data_ptr<T>();
    layer.r = in.r.const_data_ptr<T>();
    layer.cut = in.cut.const_data_ptr<T>();
    layer.ylm = in.ylm.const_data_ptr<T>();
    layer.table = {of.table.const_data_ptr<T>(), static_cast<T>(of.width), of.table.size(0),
                   of.table.size(2)};
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

  template <typename T> NearFilters<T> filters_of(const Layer<T> &layer, const Constants &of)
  {
    return {layer,
            {of.degrees, of.squared, of.eps},
            {of.into.const_data_ptr<T>(), of.bias.const_data_ptr<T>(), of.out.const_data_ptr<T>(),
             of.out_transposed.const_data_ptr<T>(), layer.degrees, of.out.size(1), layer.width, 2}};
  }

  template <typename T>
  void forward_of(const Inputs &in, const Constants &of, const Rows &rows, Tensor &dx, Tensor &dchi)
  {
    const auto layer = layer_of<T>(in, of, rows);
    const int64_t n_pairs = in.r.size(0);
    auto *x = dx.data_ptr<T>();
    auto *chi = dchi.data_ptr<T>();
    auto filters = filters_of(layer, of);
    std::vector<T> w(std::min(filters.SIZE, n_pairs) * 2 * layer.width);
    for (int64_t first = 0; first < n_pairs; first += filters.SIZE) {
      const auto last = std::min(first + filters.SIZE, n_pairs);
      filters.evaluate(first, last, w.data());
      for (int64_t p = first; p < last; ++p) {
        const auto *row = w.data() + (p - first) * 2 * layer.width;
        if (layer.back[p])
          send<T, true>(layer, p, row, x, chi);
        else
          send<T, false>(layer, p, row, x, chi);
      }
    }
  }

  template <typename T>
  void backward_of(const Inputs &in, const Constants &of, const Rows &rows, const Tensor &dx,
                   const Tensor &dchi, Inputs &g)
  {
    const auto layer = layer_of<T>(in, of, rows);
    const int64_t n_pairs = in.r.size(0), F = layer.width;
    const Rows g_rows = {at::zeros_like(rows.q), at::zeros_like(rows.k), at::zeros_like(rows.v)};
    const LayerGradient<T> gradients = {g_rows.q.data_ptr<T>(),  g_rows.k.data_ptr<T>(),
                                        g_rows.v.data_ptr<T>(),  g.cut.data_ptr<T>(),
                                        g.ylm.data_ptr<T>(),     dx.const_data_ptr<T>(),
                                        dchi.const_data_ptr<T>()};
    auto filters = filters_of(layer, of);
    std::vector<T> w(std::min(filters.SIZE, n_pairs) * 2 * F), g_w(w.size());
    for (int64_t first = 0; first < n_pairs; first += filters.SIZE) {
      const auto last = std::min(first + filters.SIZE, n_pairs);
      filters.evaluate(first, last, w.data());
      for (int64_t p = first; p < last; ++p) {
        const auto *row = w.data() + (p - first) * 2 * F;
        auto *g_row = g_w.data() + (p - first) * 2 * F;
        if (layer.back[p])
          send_back<T, true>(layer, p, row, g_row, gradients);
        else
          send_back<T, false>(layer, p, row, g_row, gradients);
      }
      filters.adjoint(first, last, g_w.data(), g.r.data_ptr<T>(), g.chi.data_ptr<T>(),
                      g.chi_src.data_ptr<T>());
    }
    rows_adjoint<T>(g_rows, of, g.x, g.x_src);
  }

  class Attend : public torch::autograd::Function<Attend> {
   public:
    static variable_list forward(AutogradContext *context, const Tensor &x, const Tensor &chi,
                                 const Tensor &x_src, const Tensor &chi_src, const Tensor &r,
                                 const Tensor &cut, const Tensor &ylm,
                                 const std::vector<Tensor> &tensors,
                                 const std::vector<double> &numbers,
                                 const std::vector<int64_t> &degrees, bool squared)
    {
      const auto type = x.scalar_type();
      require_cpu(x);
      TORCH_CHECK(type == at::kFloat || type == at::kDouble,
                  "[so3k] the kernels work in float32 and float64, not in ", type,
                  ": load the model in one of these");
      const auto in = Inputs{x, chi, x_src, chi_src, r, cut, ylm}.contiguous();
      const auto of = constants_of(tensors, numbers, degrees, squared);
      const auto rows = type == at::kFloat ? rows_of<float>(in, of) : rows_of<double>(in, of);
      variable_list saved = {in.x,   in.chi, in.x_src, in.chi_src, in.r,
                             in.cut, in.ylm, rows.q,   rows.k,     rows.v};
      saved.insert(saved.end(), tensors.begin(), tensors.end());
      context->save_for_backward(saved);
      context->saved_data["numbers"] = numbers;
      context->saved_data["degrees"] = degrees;
      context->saved_data["squared"] = squared;
      auto dx = at::zeros_like(in.x), dchi = at::zeros_like(in.chi);
      if (type == at::kFloat)
        forward_of<float>(in, of, rows, dx, dchi);
      else
        forward_of<double>(in, of, rows, dx, dchi);
      return {dx, dchi};
    }

    static variable_list backward(AutogradContext *context, const variable_list &gradients)
    {
      const auto s = context->get_saved_variables();
      const Inputs in = {s[0], s[1], s[2], s[3], s[4], s[5], s[6]};
      const Rows rows = {s[7], s[8], s[9]};
      const auto of = constants_of(
          {s.begin() + 10, s.end()}, context->saved_data["numbers"].toDoubleVector(),
          context->saved_data["degrees"].toIntVector(), context->saved_data["squared"].toBool());
      const auto filled = [](const Tensor &derivative, const Tensor &like) {
        return derivative.defined() ? derivative.contiguous() : at::zeros_like(like);
      };
      const auto dx = filled(gradients[0], in.x), dchi = filled(gradients[1], in.chi);
      Inputs g = {at::zeros_like(in.x),       at::zeros_like(in.chi), at::zeros_like(in.x_src),
                  at::zeros_like(in.chi_src), at::empty_like(in.r),   at::empty_like(in.cut),
                  at::empty_like(in.ylm)};
      if (in.x.scalar_type() == at::kFloat)
        backward_of<float>(in, of, rows, dx, dchi, g);
      else
        backward_of<double>(in, of, rows, dx, dchi, g);
      const Tensor none;
      return {g.x, g.chi, g.x_src, g.chi_src, g.r, g.cut, g.ylm, none, none, none, none};
    }
  };

  std::tuple<Tensor, Tensor> attend(const Tensor &x, const Tensor &chi, const Tensor &x_src,
                                    const Tensor &chi_src, const Tensor &r, const Tensor &cut,
                                    const Tensor &ylm, std::vector<Tensor> tensors,
                                    std::vector<double> numbers, std::vector<int64_t> degrees,
                                    bool squared)
  {
    const auto found =
        Attend::apply(x, chi, x_src, chi_src, r, cut, ylm, tensors, numbers, degrees, squared);
    return {found[0], found[1]};
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  library.def(So3k::operators::ATTEND, So3k::attend);
}
