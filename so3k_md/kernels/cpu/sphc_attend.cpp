/* so3k-md: messages of one layer between atoms of a group that are near in SPHC
 * space, with their adjoint. Each pair is computed once for both directions, and
 * again in the backward pass: memory is linear in atoms. MIT. */

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <array>
#include <vector>

#include "device.h"
#include "operators.h"
#include "sphc_tile.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace So3k {
namespace {

  /// Inputs without derivatives, in the order of the call.
  struct Constants {
    Tensor members, first, size, own;                    // of the groups, see nn/sphc.py
    Tensor into, bias, out, transposed, shift, table;    // of the filters
    std::vector<Tensor> steps;                           // of the harmonics
    double width, cutoff, eps, temperature, kappa, direction;
    std::vector<int64_t> degrees;
    int64_t p;
    bool squared;    // invariants: ‖χ‖² / √(2l + 1) instead of ‖χ‖
  };

  Constants constants_of(const std::vector<Tensor> &tensors, const std::vector<double> &numbers,
                         const std::vector<int64_t> &degrees, int64_t p, bool squared)
  {
    TORCH_CHECK(tensors.size() >= 10 && numbers.size() == 6,
                "[so3k] the model file has constants of another version of the kernels: export the "
                "model again");
    return {tensors[0],
            tensors[1],
            tensors[2],
            tensors[3],
            tensors[4],
            tensors[5],
            tensors[6],
            tensors[7],
            tensors[8],
            tensors[9],
            {tensors.begin() + 10, tensors.end()},
            numbers[0],
            numbers[1],
            numbers[2],
            numbers[3],
            numbers[4],
            numbers[5],
            degrees,
            p,
            squared};
  }

  struct Atoms {
    Tensor query, key, chi, chi_src, r, r_src;
  };

  /// The tensors of a call in the form of the kernel; `chi_of` must outlive it.
  template <typename T>
  Sphc<T> sphc_of(const Atoms &rows, const Constants &of, const Tensor &chi_of)
  {
    Sphc<T> sphc{Invariants<T>(of.degrees, of.squared, of.eps)};
    sphc.width = rows.query.size(1);
    sphc.hidden = of.bias.size(0);
    sphc.orders = rows.chi.size(1);
    sphc.degrees = static_cast<int64_t>(of.degrees.size());
    sphc.centres = rows.chi.size(0);
    sphc.members = of.members.size(0);
    sphc.query = rows.query.const_data_ptr<T>();
    sphc.key = rows.key.const_data_ptr<T>();
    sphc.chi = rows.chi.const_data_ptr<T>();
    sphc.chi_of = chi_of.const_data_ptr<T>();
    sphc.r = rows.r.const_data_ptr<double>();
    sphc.r_src = rows.r_src.const_data_ptr<double>();
    sphc.source = of.members.const_data_ptr<int64_t>();
    sphc.first = of.first.const_data_ptr<int64_t>();
    sphc.size = of.size.const_data_ptr<int64_t>();
    sphc.own = of.own.const_data_ptr<int64_t>();
    std::vector<int64_t> place(rows.chi_src.size(0), -1);
    for (int64_t n = 0; n < sphc.members; ++n) place[sphc.source[n]] = n;
    sphc.centre_of.assign(sphc.members, -1);
    for (int64_t i = 0; i < sphc.centres; ++i) {
      sphc.place_of.push_back(place[sphc.own[i]]);
      sphc.centre_of[sphc.place_of[i]] = i;
    }
    sphc.into = of.into.const_data_ptr<T>();
    sphc.bias = of.bias.const_data_ptr<T>();
    sphc.out = of.out.const_data_ptr<T>();
    sphc.transposed = of.transposed.const_data_ptr<T>();
    sphc.shift = of.shift.const_data_ptr<T>();
    sphc.table = {of.table.const_data_ptr<T>(), static_cast<T>(of.width), of.table.size(0),
                  of.table.size(2)};
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

  template <typename T> SphcTile<T> tile_of(const Sphc<T> &sphc, const Constants &of)
  {
    std::vector<const T *> steps;
    for (const auto &step : of.steps) steps.push_back(step.const_data_ptr<T>());
    return SphcTile<T>(sphc, steps, of.degrees);
  }

  template <typename T> Tensor forward_of(const Atoms &rows, const Constants &of)
  {
    const auto chi_of = ordered(rows.chi_src, of.members);
    const auto sphc = sphc_of<T>(rows, of, chi_of);
    auto dchi = at::zeros_like(rows.chi);
    auto tile = tile_of(sphc, of);
    Rows<T> neighborhoods(sphc);
    auto *sum = dchi.data_ptr<T>();
    each_tile(sphc, neighborhoods, SphcTile<T>::SIZE,
              [&](const std::vector<SphcPair<T>> &pairs) { tile.send(pairs, sum); });
    return dchi;
  }

  template <typename T>
  Atoms backward_of(const Atoms &rows, const Constants &of, const Tensor &dchi)
  {
    const auto chi_of = ordered(rows.chi_src, of.members);
    const auto sphc = sphc_of<T>(rows, of, chi_of);
    auto tile = tile_of(sphc, of);
    Rows<T> neighborhoods(sphc);
    Atoms g = {at::zeros_like(rows.query),   at::zeros_like(rows.key), at::zeros_like(rows.chi),
               at::zeros_like(rows.chi_src), at::zeros_like(rows.r),   at::zeros_like(rows.r_src)};
    const auto g_chi_of = at::zeros_like(chi_of);
    SphcGradient<T> gradient = {dchi.const_data_ptr<T>(),   g.query.data_ptr<T>(),
                                g.key.data_ptr<T>(),        g.chi.data_ptr<T>(),
                                g_chi_of.data_ptr<T>(),     g.r.data_ptr<double>(),
                                g.r_src.data_ptr<double>(), std::vector<T>(sphc.centres)};
    each_tile(sphc, neighborhoods, SphcTile<T>::SIZE,
              [&](const std::vector<SphcPair<T>> &pairs) { tile.send_back(pairs, gradient); });
    for (int64_t i = 0; i < sphc.centres; ++i)
      neighborhoods.adjoint(i, gradient.of_norm[i], gradient.chi, gradient.chi_of);
    g.chi_src.index_add_(0, of.members, g_chi_of.t());
    return g;
  }

  class SphcAttend : public torch::autograd::Function<SphcAttend> {
   public:
    static variable_list forward(AutogradContext *context, const Tensor &query, const Tensor &key,
                                 const Tensor &chi, const Tensor &chi_src, const Tensor &r,
                                 const Tensor &r_src, const std::vector<Tensor> &tensors,
                                 const std::vector<double> &numbers,
                                 const std::vector<int64_t> &degrees, int64_t p, bool squared)
    {
      const Atoms rows = {query.contiguous(),
                          key.contiguous(),
                          chi.contiguous(),
                          chi_src.contiguous(),
                          r.to(at::kDouble).contiguous(),
                          r_src.to(at::kDouble).contiguous()};
      const auto type = query.scalar_type();
      require_cpu(query);
      TORCH_CHECK(type == at::kFloat || type == at::kDouble,
                  "[so3k] the kernels work in float32 and float64, not in ", type,
                  ": load the model in one of these");
      TORCH_CHECK(static_cast<int64_t>(degrees.size()) <= MAX_HEADS, "[so3k] the model has ",
                  degrees.size(), " degrees, the kernels support at most ", MAX_HEADS,
                  ": use kernels = off");
      std::vector<Tensor> whole;
      for (const auto &tensor : tensors) whole.push_back(tensor.contiguous());
      variable_list saved = {rows.query, rows.key, rows.chi, rows.chi_src, rows.r, rows.r_src};
      saved.insert(saved.end(), whole.begin(), whole.end());
      context->save_for_backward(saved);
      context->saved_data["numbers"] = numbers;
      context->saved_data["degrees"] = degrees;
      context->saved_data["p"] = p;
      context->saved_data["squared"] = squared;
      context->saved_data["r_type"] = static_cast<int64_t>(r.scalar_type());
      const auto of = constants_of(whole, numbers, degrees, p, squared);
      return {type == at::kFloat ? forward_of<float>(rows, of) : forward_of<double>(rows, of)};
    }

    static variable_list backward(AutogradContext *context, const variable_list &gradient)
    {
      const auto saved = context->get_saved_variables();
      const Atoms rows = {saved[0], saved[1], saved[2], saved[3], saved[4], saved[5]};
      const auto of = constants_of(
          {saved.begin() + 6, saved.end()}, context->saved_data["numbers"].toDoubleVector(),
          context->saved_data["degrees"].toIntVector(), context->saved_data["p"].toInt(),
          context->saved_data["squared"].toBool());
      const auto dchi = gradient[0].contiguous();
      const auto g = rows.query.scalar_type() == at::kFloat ? backward_of<float>(rows, of, dchi)
                                                            : backward_of<double>(rows, of, dchi);
      const auto r_type = static_cast<at::ScalarType>(context->saved_data["r_type"].toInt());
      const Tensor none;
      return {g.query, g.key, g.chi, g.chi_src, g.r.to(r_type), g.r_src.to(r_type), none,
              none,    none,  none,  none};
    }
  };

  Tensor sphc_attend(const Tensor &query, const Tensor &key, const Tensor &chi,
                     const Tensor &chi_src, const Tensor &r, const Tensor &r_src,
                     std::vector<Tensor> tensors, std::vector<double> numbers,
                     std::vector<int64_t> degrees, int64_t p, bool squared)
  {
    return SphcAttend::apply(query, key, chi, chi_src, r, r_src, tensors, numbers, degrees, p,
                             squared)[0];
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  library.def(So3k::operators::SPHC_ATTEND, So3k::sphc_attend);
}
