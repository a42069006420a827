/* so3k-md: messages of one layer between atoms of a group that are near in SPHC
 * space, with their adjoint. Each pair is computed once for both directions, and
 * again in the backward pass: memory is linear in atoms. MIT. */

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <array>
#include <vector>

#include "device.h"
#include "far_tile.h"
#include "operators.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace So3k {
namespace {

  /// Inputs without derivatives, in the order of the call.
  struct Constants {
    Tensor members, first, size, own;                // of the groups, see nn/sphc.py
    Tensor into, bias, out, turned, shift, table;    // of the filters
    std::vector<Tensor> steps;                       // of the harmonics
    double width, cutoff, eps, temperature, kappa, direction;
    std::vector<int64_t> degrees;
    int64_t p;
    bool squared;    // invariants: ‖χ‖² / √(2l + 1) instead of ‖χ‖
  };

  Constants constants_of(const std::vector<Tensor> &tensors, const std::vector<double> &numbers,
                         const std::vector<int64_t> &degrees, int64_t p, bool squared)
  {
    TORCH_CHECK(tensors.size() >= 10 && numbers.size() == 6,
                "[so3k] constants of another version of the kernels: export the model again");
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
  template <typename T> Far<T> far_of(const Atoms &rows, const Constants &of, const Tensor &chi_of)
  {
    Far<T> far{Invariants<T>(of.degrees, of.squared, of.eps)};
    far.width = rows.query.size(1);
    far.hidden = of.bias.size(0);
    far.orders = rows.chi.size(1);
    far.degrees = static_cast<int64_t>(of.degrees.size());
    far.centres = rows.chi.size(0);
    far.members = of.members.size(0);
    far.query = rows.query.const_data_ptr<T>();
    far.key = rows.key.const_data_ptr<T>();
    far.chi = rows.chi.const_data_ptr<T>();
    far.chi_of = chi_of.const_data_ptr<T>();
    far.r = rows.r.const_data_ptr<double>();
    far.r_src = rows.r_src.const_data_ptr<double>();
    far.source = of.members.const_data_ptr<int64_t>();
    far.first = of.first.const_data_ptr<int64_t>();
    far.size = of.size.const_data_ptr<int64_t>();
    far.own = of.own.const_data_ptr<int64_t>();
    std::vector<int64_t> place(rows.chi_src.size(0), -1);
    for (int64_t n = 0; n < far.members; ++n) place[far.source[n]] = n;
    far.centre_of.assign(far.members, -1);
    for (int64_t i = 0; i < far.centres; ++i) {
      far.place_of.push_back(place[far.own[i]]);
      far.centre_of[far.place_of[i]] = i;
    }
    far.into = of.into.const_data_ptr<T>();
    far.bias = of.bias.const_data_ptr<T>();
    far.out = of.out.const_data_ptr<T>();
    far.turned = of.turned.const_data_ptr<T>();
    far.shift = of.shift.const_data_ptr<T>();
    far.table = {of.table.const_data_ptr<T>(), static_cast<T>(of.width), of.table.size(0),
                 of.table.size(2)};
    for (int64_t n = 0; n < far.degrees; ++n) {
      const auto degree = of.degrees[n];
      for (int64_t m = 0; m < 2 * degree + 1; ++m) {
        far.degree_of.push_back(n);
        far.sign.push_back(degree % 2 ? T(-1) : T(1));
      }
    }
    far.p = of.p;
    far.cutoff = static_cast<T>(of.cutoff);
    far.temperature = static_cast<T>(of.temperature);
    far.kappa = static_cast<T>(of.kappa);
    far.direction = static_cast<T>(of.direction);
    return far;
  }

  /// SPHCs of the members, a row for each order.
  Tensor ordered(const Tensor &chi_src, const Tensor &members)
  {
    return chi_src.index_select(0, members).t().contiguous();
  }

  template <typename T> FarTile<T> tile_of(const Far<T> &far, const Constants &of)
  {
    std::vector<const T *> steps;
    for (const auto &step : of.steps) steps.push_back(step.const_data_ptr<T>());
    return FarTile<T>(far, steps, of.degrees);
  }

  template <typename T> Tensor forward_of(const Atoms &rows, const Constants &of)
  {
    const auto chi_of = ordered(rows.chi_src, of.members);
    const auto far = far_of<T>(rows, of, chi_of);
    auto dchi = at::zeros_like(rows.chi);
    auto tile = tile_of(far, of);
    Rows<T> neighbourhoods(far);
    auto *sum = dchi.data_ptr<T>();
    each_tile(far, neighbourhoods, FarTile<T>::SIZE,
              [&](const std::vector<FarPair<T>> &pairs) { tile.send(pairs, sum); });
    return dchi;
  }

  template <typename T>
  Atoms backward_of(const Atoms &rows, const Constants &of, const Tensor &dchi)
  {
    const auto chi_of = ordered(rows.chi_src, of.members);
    const auto far = far_of<T>(rows, of, chi_of);
    auto tile = tile_of(far, of);
    Rows<T> neighbourhoods(far);
    Atoms g = {at::zeros_like(rows.query),   at::zeros_like(rows.key), at::zeros_like(rows.chi),
               at::zeros_like(rows.chi_src), at::zeros_like(rows.r),   at::zeros_like(rows.r_src)};
    const auto g_chi_of = at::zeros_like(chi_of);
    FarSlopes<T> slopes = {dchi.const_data_ptr<T>(),   g.query.data_ptr<T>(),
                           g.key.data_ptr<T>(),        g.chi.data_ptr<T>(),
                           g_chi_of.data_ptr<T>(),     g.r.data_ptr<double>(),
                           g.r_src.data_ptr<double>(), std::vector<T>(far.centres)};
    each_tile(far, neighbourhoods, FarTile<T>::SIZE,
              [&](const std::vector<FarPair<T>> &pairs) { tile.send_back(pairs, slopes); });
    for (int64_t i = 0; i < far.centres; ++i)
      neighbourhoods.adjoint(i, slopes.of_norm[i], slopes.chi, slopes.chi_of);
    g.chi_src.index_add_(0, of.members, g_chi_of.t());
    return g;
  }

  class FarAttend : public torch::autograd::Function<FarAttend> {
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
                  "[so3k] the kernels work in float32 and float64");
      TORCH_CHECK(static_cast<int64_t>(degrees.size()) <= MAX_HEADS,
                  "[so3k] more degrees than the kernels hold");
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

    static variable_list backward(AutogradContext *context, const variable_list &slopes)
    {
      const auto saved = context->get_saved_variables();
      const Atoms rows = {saved[0], saved[1], saved[2], saved[3], saved[4], saved[5]};
      const auto of = constants_of(
          {saved.begin() + 6, saved.end()}, context->saved_data["numbers"].toDoubleVector(),
          context->saved_data["degrees"].toIntVector(), context->saved_data["p"].toInt(),
          context->saved_data["squared"].toBool());
      const auto dchi = slopes[0].contiguous();
      const auto g = rows.query.scalar_type() == at::kFloat ? backward_of<float>(rows, of, dchi)
                                                            : backward_of<double>(rows, of, dchi);
      const auto r_type = static_cast<at::ScalarType>(context->saved_data["r_type"].toInt());
      const Tensor none;
      return {g.query, g.key, g.chi, g.chi_src, g.r.to(r_type), g.r_src.to(r_type), none,
              none,    none,  none,  none};
    }
  };

  Tensor far_attend(const Tensor &query, const Tensor &key, const Tensor &chi,
                    const Tensor &chi_src, const Tensor &r, const Tensor &r_src,
                    std::vector<Tensor> tensors, std::vector<double> numbers,
                    std::vector<int64_t> degrees, int64_t p, bool squared)
  {
    return FarAttend::apply(query, key, chi, chi_src, r, r_src, tensors, numbers, degrees, p,
                            squared)[0];
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  library.def(So3k::operators::FAR_ATTEND, So3k::far_attend);
}
