/* so3k-md: `update`, the exchange between features and SPHCs at the end of a layer, with its
 * adjoint. MIT.
 *
 * The equations are those of so3k_md/nn. Products and layer norms are those of torch on any device;
 * the loops over the rows of exchange.h are those of a device, given as a type. */

#ifndef SO3K_UPDATE_H
#define SO3K_UPDATE_H

#include <cmath>
#include <tuple>
#include <vector>

#include "arguments.h"
#include "exchange.h"

namespace So3k {

/// The arguments, in the order of the schema. A part that the layer lacks has empty tensors.
struct UpdateArguments {
  at::Tensor x, chi;    // with derivatives: rows plus their messages
  at::Tensor norm1_weight, norm1_bias, mlp_first, mlp_first_bias, mlp_second, mlp_second_bias;
  at::Tensor chi_scale;                                        // of the norms of χ
  at::Tensor linear, linear_bias;                              // of the exchange
  at::Tensor mixing, left, right, mixed_linear, mixed_bias;    // of SelfMix
  at::Tensor norm2_weight, norm2_bias;
  double norm_eps;
  std::vector<int64_t> degrees;
  bool squared;    // invariants: ‖χ‖² / √(2l + 1) instead of ‖χ‖

  explicit UpdateArguments(Arguments &next) :
      x(next.tensor()), chi(next.tensor()), norm1_weight(next.tensor()), norm1_bias(next.tensor()),
      mlp_first(next.tensor()), mlp_first_bias(next.tensor()), mlp_second(next.tensor()),
      mlp_second_bias(next.tensor()), chi_scale(next.tensor()), linear(next.tensor()),
      linear_bias(next.tensor()), mixing(next.tensor()), left(next.tensor()), right(next.tensor()),
      mixed_linear(next.tensor()), mixed_bias(next.tensor()), norm2_weight(next.tensor()),
      norm2_bias(next.tensor()), norm_eps(next.number()), degrees(next.integers()),
      squared(next.flag())
  {
    require_precision(x.scalar_type());
    TORCH_CHECK(degrees.size() <= MOST_DEGREES, "[so3k] the kernels have at most ", MOST_DEGREES,
                " degrees, the model has ", degrees.size(), ": use kernels = off");
  }

  bool has_norms() const { return norm1_weight.numel() > 0; }
  bool has_mlp() const { return mlp_first.numel() > 0; }
  bool has_chi_norm() const { return chi_scale.numel() > 0; }
  bool mixes() const { return mixed_linear.numel() > 0; }
  int64_t n_degrees() const { return static_cast<int64_t>(degrees.size()); }
  double factor() const { return mixes() ? 1.0 / std::sqrt(3.0) : 1.0; }    // of x after SelfMix

  template <typename T> RowShape<T> shape() const
  {
    RowShape<T> shape{};
    shape.features = static_cast<int>(x.size(1));
    shape.degrees = static_cast<int>(degrees.size());
    for (int l = 0; l < shape.degrees; ++l) {
      shape.order[l + 1] = shape.order[l] + 2 * static_cast<int>(degrees[l]) + 1;
      shape.weight[l] = squared ? static_cast<T>(1 / std::sqrt(2.0 * degrees[l] + 1)) : T(0);
    }
    shape.width = shape.order[shape.degrees];
    shape.floor = static_cast<T>(norm_eps * norm_eps + 1e-30);
    shape.eps = static_cast<T>(norm_eps);
    return shape;
  }
};

/// Tensors that the backward pass reads; empty where the layer lacks a part.
struct UpdateSaved {
  at::Tensor mean1, rstd1, h, hidden;    // of the first norm; input and hidden layer of the MLP
  at::Tensor chi, y, mixed, a3;          // χ after its norm; output of the exchange; SelfMix
  at::Tensor sum, mean2, rstd2;          // input of the second norm

  static constexpr int COUNT = 11;
  std::vector<at::Tensor> list() const
  {
    return {mean1, rstd1, h, hidden, chi, y, mixed, a3, sum, mean2, rstd2};
  }
};

/// Both passes of `update` in one precision.
///
/// Loops has functions for all rows n and degrees l, or features f: `degrees<member>(of)` calls
/// (of.*member)(n, l), and `features<member>(of)` calls (of.*member)(n, f).
template <typename T, typename Loops> class Update {
  using Tensor = at::Tensor;

 public:
  Update(const UpdateArguments &of, Loops loops) : of(of), loops(loops), shape(of.shape<T>()) {}

  /// The results x, χ and the saved tensors.
  std::vector<Tensor> forward() const
  {
    const auto none = at::empty({0}, of.x.options());
    UpdateSaved s = {none, none, of.x, none, of.chi, none, none, none, none, none, none};
    if (of.has_norms())
      std::tie(s.h, s.mean1, s.rstd1) =
          at::native_layer_norm(of.x, {of.x.size(1)}, of.norm1_weight, of.norm1_bias, NORM_EPS);
    auto h = s.h;
    if (of.has_mlp()) {
      s.hidden = at::addmm(of.mlp_first_bias, at::silu(s.h), of.mlp_first);
      h = s.h + at::addmm(of.mlp_second_bias, at::silu(s.hidden), of.mlp_second);
    }
    if (of.has_chi_norm()) {
      s.chi = at::empty_like(of.chi);
      const ChiNorms<T> norms = {shape, n_atoms(), of_(of.chi), of_(of.chi_scale), to_(s.chi)};
      loops.template degrees<&ChiNorms<T>::forward>(norms);
    }
    auto [x, chi] = exchanged(h, s);
    if (of.has_norms()) {
      s.sum = x;
      std::tie(x, s.mean2, s.rstd2) =
          at::native_layer_norm(s.sum, {x.size(1)}, of.norm2_weight, of.norm2_bias, NORM_EPS);
    }
    std::vector<Tensor> results = {x, chi};
    // results of an operator are no arguments of it
    if (!of.has_norms()) s.h = none;
    if (!of.has_chi_norm()) s.chi = none;
    const auto saved = s.list();
    results.insert(results.end(), saved.begin(), saved.end());
    return results;
  }

  /// Derivatives by x and χ.
  std::vector<Tensor> backward(UpdateSaved s, Tensor g_x, const Tensor &g_chi) const
  {
    if (!of.has_norms()) s.h = of.x;
    if (!of.has_chi_norm()) s.chi = of.chi;
    if (of.has_norms())
      g_x = norm_adjoint(g_x, s.sum, s.mean2, s.rstd2, of.norm2_weight, of.norm2_bias);
    auto [g_h, g_old] = exchange_adjoint(s, g_x.contiguous(), g_chi);
    if (of.has_mlp()) {
      const auto g_hidden = at::silu_backward(g_h.mm(of.mlp_second.t()), s.hidden);
      g_h = g_h + at::silu_backward(g_hidden.mm(of.mlp_first.t()), s.h);
    }
    if (of.has_norms())
      g_h = norm_adjoint(g_h, of.x, s.mean1, s.rstd1, of.norm1_weight, of.norm1_bias);
    if (of.has_chi_norm()) {
      const ChiNorms<T> norms = {shape, n_atoms(), of_(of.chi), of_(of.chi_scale), to_(g_old)};
      loops.template degrees<&ChiNorms<T>::backward>(norms);
    }
    return {g_h, g_old};
  }

 private:
  static constexpr double NORM_EPS = 1e-6;    // of the layer norms

  const UpdateArguments &of;
  const Loops loops;
  const RowShape<T> shape;

  long long n_atoms() const { return of.x.size(0); }
  static const T *of_(const Tensor &tensor) { return tensor.const_data_ptr<T>(); }
  static T *to_(const Tensor &tensor) { return tensor.mutable_data_ptr<T>(); }

  ChiInvariants<T> invariants(const Tensor &chi, const Tensor &matrix, int64_t column) const
  {
    return {shape, n_atoms(), of_(chi), to_(matrix) + column, matrix.size(1), nullptr};
  }
  void fill_invariants(const Tensor &chi, const Tensor &to, int64_t column) const
  {
    loops.template degrees<&ChiInvariants<T>::forward>(invariants(chi, to, column));
  }
  void add_invariants_adjoint(const Tensor &chi, const Tensor &g, int64_t column,
                              Tensor &g_chi) const
  {
    auto adjoint = invariants(chi, g, column);
    adjoint.g_chi = to_(g_chi);
    loops.template degrees<&ChiInvariants<T>::backward>(adjoint);
  }

  Exchange<T> exchange(const UpdateSaved &s) const
  {
    Exchange<T> made{};
    made.shape = shape;
    made.rows = n_atoms();
    made.chi = of_(s.chi), made.y = of_(s.y);
    if (of.mixes()) made.a3 = of_(s.a3), made.mixed = of_(s.mixed);
    made.factor = static_cast<T>(of.factor());
    return made;
  }

  /// Features and SPHCs after the exchange, before the second norm.
  std::tuple<Tensor, Tensor> exchanged(const Tensor &h, UpdateSaved &s) const
  {
    const auto F = h.size(1), L = of.n_degrees();
    const auto input = at::empty({h.size(0), F + L}, h.options());
    input.narrow(1, 0, F).copy_(h);
    fill_invariants(s.chi, input, F);
    s.y = at::addmm(of.linear_bias, input, of.linear);
    if (of.mixes()) {
      s.mixed = (s.chi.index_select(1, of.left) * s.chi.index_select(1, of.right)).mm(of.mixing);
      const auto squares = at::empty({h.size(0), L}, h.options());
      fill_invariants(s.mixed, squares, 0);
      s.a3 = at::addmm(of.mixed_bias, squares, of.mixed_linear);
    }
    const auto x = at::empty_like(h), chi = at::empty_like(s.chi);
    auto made = exchange(s);
    made.x = of_(h);
    made.to_x = to_(x), made.to_chi = to_(chi);
    loops.template features<&Exchange<T>::feature>(made);
    loops.template degrees<&Exchange<T>::degree>(made);
    return {x, chi};
  }

  /// The adjoint of `exchanged`: derivatives by h and by χ after its norm.
  std::tuple<Tensor, Tensor> exchange_adjoint(const UpdateSaved &s, const Tensor &g_x,
                                              const Tensor &g_chi) const
  {
    const auto F = g_x.size(1);
    const auto g_y = at::empty_like(s.y), g_a3 = at::empty_like(s.a3);
    auto g_old = at::empty_like(s.chi), g_mixed = at::empty_like(s.mixed);
    auto made = exchange(s);
    made.g_x = of_(g_x), made.g_chi = of_(g_chi);
    made.g_y = to_(g_y), made.g_old = to_(g_old);
    if (of.mixes()) made.g_a3 = to_(g_a3), made.g_mixed = to_(g_mixed);
    loops.template features<&Exchange<T>::feature_backward>(made);
    loops.template degrees<&Exchange<T>::degree_backward>(made);
    if (of.mixes()) {
      const auto g_squares = g_a3.mm(of.mixed_linear.t());
      add_invariants_adjoint(s.mixed, g_squares, 0, g_mixed);
      const auto g_products = g_mixed.mm(of.mixing.t());
      g_old.index_add_(1, of.left, g_products * s.chi.index_select(1, of.right));
      g_old.index_add_(1, of.right, g_products * s.chi.index_select(1, of.left));
    }
    const auto g_input = g_y.mm(of.linear.t());
    add_invariants_adjoint(s.chi, g_input, F, g_old);
    const auto direct = of.mixes() ? g_x * of.factor() : g_x;
    return {direct + g_input.narrow(1, 0, F), g_old};
  }

  /// Of a layer norm, by its input.
  static Tensor norm_adjoint(const Tensor &g, const Tensor &input, const Tensor &mean,
                             const Tensor &rstd, const Tensor &weight, const Tensor &bias)
  {
    return std::get<0>(at::native_layer_norm_backward(g, input, {input.size(1)}, mean, rstd, weight,
                                                      bias, {true, false, false}));
  }
};

/// Calls `work(of, saved, g_x, g_chi)` with the arguments of update_backward on the stack.
template <typename Work> void update_backward(Arguments &next, Work work)
{
  const auto given_x = next.optional(), given_chi = next.optional();
  std::vector<at::Tensor> s;
  for (int k = 0; k < UpdateSaved::COUNT; ++k) s.push_back(next.tensor());
  const UpdateSaved saved = {s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9], s[10]};
  const UpdateArguments of(next);
  work(of, saved, or_zeros(given_x, of.x), or_zeros(given_chi, of.chi));
}

}    // namespace So3k

#endif
