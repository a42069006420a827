/* so3k-md: messages of one layer between neighbours, pair by pair in the cache,
 * with their adjoint. MIT. */

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "multiply.h"
#include "pairs.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace So3k {
namespace {

  // pairs whose filters are made at once: 256 rows of a few hundred columns stay
  // in the second cache
  constexpr int64_t TILE = 256;

  struct Inputs {
    Tensor q, k, v, hidden, r, cut, ylm, weight, table, idx_i, idx_j, back;
    double spacing;
    int64_t heads;
    std::vector<int64_t> degrees;
  };

  template <typename T> Layer<T> layer_of(const Inputs &in)
  {
    Layer<T> layer;
    layer.width = in.v.size(1);
    layer.heads = in.heads;
    layer.orders = in.ylm.size(1);
    layer.hidden = in.weight.size(1);
    layer.q = in.q.const_data_ptr<T>();
    layer.k = in.k.const_data_ptr<T>();
    layer.v = in.v.const_data_ptr<T>();
    layer.r = in.r.const_data_ptr<T>();
    layer.cut = in.cut.const_data_ptr<T>();
    layer.ylm = in.ylm.const_data_ptr<T>();
    layer.s = in.hidden.const_data_ptr<T>();
    layer.weight = in.weight.const_data_ptr<T>();
    layer.table = in.table.const_data_ptr<T>();
    layer.spacing = static_cast<T>(in.spacing);
    layer.knots = in.table.size(0);
    layer.i = in.idx_i.const_data_ptr<int64_t>();
    layer.j = in.idx_j.const_data_ptr<int64_t>();
    layer.back = in.back.const_data_ptr<bool>();
    layer.degrees = static_cast<int64_t>(in.degrees.size());
    layer.order.push_back(0);
    for (const auto degree : in.degrees) {
      layer.order.push_back(layer.order.back() + 2 * degree + 1);
      layer.sign.push_back(degree % 2 ? T(-1) : T(1));
    }
    return layer;
  }

  /// The filters of some pairs, (pairs, 2F): spherical part by matrix products,
  /// radial part from the table.
  template <typename T> void filters(const Layer<T> &layer, int64_t first, int64_t last, T *w)
  {
    const int64_t F = layer.width, H = layer.hidden, n = last - first;
    for (int64_t part = 0; part < 2; ++part)
      multiply(layer.s + first * 2 * H + part * H, 2 * H, layer.weight + part * H * F, F, H,
               w + part * F, 2 * F, n, F);
    for (int64_t p = first; p < last; ++p)
      Hermite<T>(layer.r[p], layer.spacing, layer.knots)
          .add(layer.table, 2 * F, w + (p - first) * 2 * F);
  }

  template <typename T> void forward_of(const Inputs &in, Tensor &dx, Tensor &dchi)
  {
    const auto layer = layer_of<T>(in);
    const int64_t n_pairs = in.r.size(0);
    auto *x = dx.data_ptr<T>();
    auto *chi = dchi.data_ptr<T>();
    std::vector<T> w(std::min(TILE, n_pairs) * 2 * layer.width);
    for (int64_t first = 0; first < n_pairs; first += TILE) {
      const auto last = std::min(first + TILE, n_pairs);
      filters(layer, first, last, w.data());
      for (int64_t p = first; p < last; ++p) {
        const auto *row = w.data() + (p - first) * 2 * layer.width;
        if (layer.back[p])
          send<T, true>(layer, p, row, x, chi);
        else
          send<T, false>(layer, p, row, x, chi);
      }
    }
  }

  struct Adjoint {
    Tensor q, k, v, hidden, r, cut, ylm;
  };

  template <typename T>
  void backward_of(const Inputs &in, const Tensor &dx, const Tensor &dchi, Adjoint &g)
  {
    const auto layer = layer_of<T>(in);
    const int64_t n_pairs = in.r.size(0), F = layer.width, H = layer.hidden;
    const Slopes<T> slopes = {g.q.data_ptr<T>(),       g.k.data_ptr<T>(),   g.v.data_ptr<T>(),
                              g.cut.data_ptr<T>(),     g.ylm.data_ptr<T>(), dx.const_data_ptr<T>(),
                              dchi.const_data_ptr<T>()};
    auto *g_r = g.r.data_ptr<T>();
    auto *g_hidden = g.hidden.data_ptr<T>();
    const Tensor turned = in.weight.transpose(1, 2).contiguous();
    const auto *back = turned.const_data_ptr<T>();
    std::vector<T> w(std::min(TILE, n_pairs) * 2 * F), g_w(w.size());
    for (int64_t first = 0; first < n_pairs; first += TILE) {
      const auto last = std::min(first + TILE, n_pairs);
      filters(layer, first, last, w.data());
      for (int64_t p = first; p < last; ++p) {
        const auto *row = w.data() + (p - first) * 2 * F;
        auto *g_row = g_w.data() + (p - first) * 2 * F;
        if (layer.back[p])
          send_back<T, true>(layer, p, row, g_row, slopes);
        else
          send_back<T, false>(layer, p, row, g_row, slopes);
        g_r[p] =
            Hermite<T>(layer.r[p], layer.spacing, layer.knots).slope_of(layer.table, 2 * F, g_row);
      }
      for (int64_t part = 0; part < 2; ++part)
        multiply(g_w.data() + part * F, 2 * F, back + part * F * H, H, F,
                 g_hidden + first * 2 * H + part * H, 2 * H, last - first, H);
    }
  }

  std::pair<Tensor, Tensor> messages(const Inputs &in)
  {
    auto dx = at::zeros({in.q.size(0), in.v.size(1)}, in.q.options());
    auto dchi = at::zeros({in.q.size(0), in.ylm.size(1)}, in.q.options());
    if (in.q.scalar_type() == at::kFloat)
      forward_of<float>(in, dx, dchi);
    else
      forward_of<double>(in, dx, dchi);
    return {dx, dchi};
  }

  void check(const Inputs &in)
  {
    TORCH_CHECK(in.q.scalar_type() == at::kFloat || in.q.scalar_type() == at::kDouble,
                "[so3k] the kernels work in float32 and float64");
    TORCH_CHECK(in.heads <= MAX_HEADS && static_cast<int64_t>(in.degrees.size()) <= MAX_HEADS,
                "[so3k] more heads than the kernels hold");
    TORCH_CHECK(in.table.size(0) > 1 && in.table.size(2) == 2 * in.v.size(1),
                "[so3k] a table of other filters");
  }

  class Attend : public torch::autograd::Function<Attend> {
   public:
    static variable_list forward(AutogradContext *context, const Tensor &q, const Tensor &k,
                                 const Tensor &v, const Tensor &hidden, const Tensor &r,
                                 const Tensor &cut, const Tensor &ylm, const Tensor &weight,
                                 const Tensor &table, const Tensor &idx_i, const Tensor &idx_j,
                                 const Tensor &back, double spacing, int64_t heads,
                                 const std::vector<int64_t> &degrees)
    {
      const Inputs in = {q.contiguous(),
                         k.contiguous(),
                         v.contiguous(),
                         hidden.contiguous(),
                         r.contiguous(),
                         cut.contiguous(),
                         ylm.contiguous(),
                         weight.contiguous(),
                         table.contiguous(),
                         idx_i.contiguous(),
                         idx_j.contiguous(),
                         back.contiguous(),
                         spacing,
                         heads,
                         degrees};
      check(in);
      context->save_for_backward({in.q, in.k, in.v, in.hidden, in.r, in.cut, in.ylm, in.weight,
                                  in.table, in.idx_i, in.idx_j, in.back});
      context->saved_data["spacing"] = spacing;
      context->saved_data["heads"] = heads;
      context->saved_data["degrees"] = degrees;
      const auto [dx, dchi] = messages(in);
      return {dx, dchi};
    }

    static variable_list backward(AutogradContext *context, const variable_list &slopes)
    {
      const auto saved = context->get_saved_variables();
      const Inputs in = {saved[0],
                         saved[1],
                         saved[2],
                         saved[3],
                         saved[4],
                         saved[5],
                         saved[6],
                         saved[7],
                         saved[8],
                         saved[9],
                         saved[10],
                         saved[11],
                         context->saved_data["spacing"].toDouble(),
                         context->saved_data["heads"].toInt(),
                         context->saved_data["degrees"].toIntVector()};
      const auto filled = [&](const Tensor &slope, const Tensor &like, int64_t columns) {
        return slope.defined() ? slope.contiguous()
                               : at::zeros({like.size(0), columns}, like.options());
      };
      const auto dx = filled(slopes[0], in.q, in.v.size(1));
      const auto dchi = filled(slopes[1], in.q, in.ylm.size(1));
      Adjoint g = {at::zeros_like(in.q),      at::zeros_like(in.k), at::zeros_like(in.v),
                   at::empty_like(in.hidden), at::empty_like(in.r), at::empty_like(in.cut),
                   at::empty_like(in.ylm)};
      if (in.q.scalar_type() == at::kFloat)
        backward_of<float>(in, dx, dchi, g);
      else
        backward_of<double>(in, dx, dchi, g);
      const Tensor none;
      return {g.q,  g.k,  g.v,  g.hidden, g.r,  g.cut, g.ylm, none,
              none, none, none, none,     none, none,  none};
    }
  };

  std::tuple<Tensor, Tensor> attend(const Tensor &q, const Tensor &k, const Tensor &v,
                                    const Tensor &hidden, const Tensor &r, const Tensor &cut,
                                    const Tensor &ylm, const Tensor &weight, const Tensor &table,
                                    const Tensor &idx_i, const Tensor &idx_j, const Tensor &back,
                                    double spacing, int64_t heads, std::vector<int64_t> degrees)
  {
    const auto found = Attend::apply(q, k, v, hidden, r, cut, ylm, weight, table, idx_i, idx_j,
                                     back, spacing, heads, degrees);
    return {found[0], found[1]};
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  library.def("attend(Tensor q, Tensor k, Tensor v, Tensor hidden, Tensor r, "
              "Tensor cut, Tensor "
              "ylm, Tensor weight, "
              "Tensor table, Tensor idx_i, Tensor idx_j, Tensor back, float "
              "spacing, int heads, "
              "int[] degrees) "
              "-> (Tensor, Tensor)",
              So3k::attend);
}
