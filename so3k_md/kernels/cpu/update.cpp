/* so3k-md: the exchange between features and SPHCs of each atom at the end of a layer, with its
 * adjoint; the equations are those of so3k_md/nn. MIT. */

#include <cmath>
#include <tuple>
#include <vector>

#include "arguments.h"
#include "differentiable.h"
#include "filter.h"
#include "operators.h"
#include "threads.h"

using at::Tensor;
using torch::jit::Stack;

namespace So3k {
namespace {

  constexpr int64_t LEAST_ATOMS = 256;    // for which another thread pays
  constexpr double NORM_EPS = 1e-6;       // of the layer norms

  /// The arguments, in the order of the schema. A part that the layer lacks has empty tensors.
  struct Call {
    Tensor x, chi;    // with derivatives: rows plus their messages
    Tensor norm1_weight, norm1_bias, mlp_first, mlp_first_bias, mlp_second, mlp_second_bias;
    Tensor chi_scale;                                        // of the norms of χ
    Tensor linear, linear_bias;                              // of the exchange
    Tensor mixing, left, right, mixed_linear, mixed_bias;    // of SelfMix
    Tensor norm2_weight, norm2_bias;
    double norm_eps;
    std::vector<int64_t> degrees;
    bool squared;    // invariants: ‖χ‖² / √(2l + 1) instead of ‖χ‖

    explicit Call(Arguments &next) :
        x(next.tensor()), chi(next.tensor()), norm1_weight(next.tensor()),
        norm1_bias(next.tensor()), mlp_first(next.tensor()), mlp_first_bias(next.tensor()),
        mlp_second(next.tensor()), mlp_second_bias(next.tensor()), chi_scale(next.tensor()),
        linear(next.tensor()), linear_bias(next.tensor()), mixing(next.tensor()),
        left(next.tensor()), right(next.tensor()), mixed_linear(next.tensor()),
        mixed_bias(next.tensor()), norm2_weight(next.tensor()), norm2_bias(next.tensor()),
        norm_eps(next.number()), degrees(next.integers()), squared(next.flag())
    {
      require_precision(x.scalar_type());
    }

    bool has_norms() const { return norm1_weight.numel() > 0; }
    bool has_mlp() const { return mlp_first.numel() > 0; }
    bool has_chi_norm() const { return chi_scale.numel() > 0; }
    bool mixes() const { return mixed_linear.numel() > 0; }
    int64_t n_degrees() const { return static_cast<int64_t>(degrees.size()); }
  };

  /// Tensors that the backward pass reads; empty where the layer lacks a part.
  struct Saved {
    Tensor mean1, rstd1, h, hidden;    // of the first norm; input and hidden layer of the MLP
    Tensor chi, y, mixed, a3;          // χ after its norm; output of the exchange; SelfMix
    Tensor sum, mean2, rstd2;          // input of the second norm

    static constexpr int COUNT = 11;
    std::vector<Tensor> list() const
    {
      return {mean1, rstd1, h, hidden, chi, y, mixed, a3, sum, mean2, rstd2};
    }
  };

  /// work(atom, l, first order of l, one after the last) for the degrees of some atoms.
  template <typename Work> void each_degree(const Call &of, int64_t first, int64_t last, Work work)
  {
    for (auto n = first; n < last; ++n) {
      int64_t order = 0;
      for (int64_t l = 0; l < of.n_degrees(); ++l) {
        const auto end = order + 2 * of.degrees[l] + 1;
        work(n, l, order, end);
        order = end;
      }
    }
  }

  template <typename T> T square(const T *row, int64_t order, int64_t end)
  {
    T sum = 0;
    for (auto m = order; m < end; ++m) sum += row[m] * row[m];
    return sum;
  }

  /// χ^(l) ← s_l χ^(l) / √(‖χ^(l)‖² + ε²).
  template <typename T> Tensor normalised(const Call &of)
  {
    const auto found = at::empty_like(of.chi);
    const auto width = of.chi.size(1);
    const T *from = of.chi.const_data_ptr<T>(), *scale = of.chi_scale.const_data_ptr<T>();
    const T floor = static_cast<T>(of.norm_eps * of.norm_eps + 1e-30);
    T *to = found.template data_ptr<T>();
    in_ranges(of.chi.size(0), LEAST_ATOMS, [&](int64_t first, int64_t last) {
      each_degree(of, first, last, [&](int64_t n, int64_t l, int64_t order, int64_t end) {
        const T *row = from + n * width;
        const T factor = scale[l] / std::sqrt(square(row, order, end) + floor);
        for (auto m = order; m < end; ++m) to[n * width + m] = factor * row[m];
      });
    });
    return found;
  }

  /// The adjoint of `normalised`, in place of its output's derivative.
  template <typename T> void normalised_adjoint(const Call &of, Tensor &g_chi)
  {
    const auto width = of.chi.size(1);
    const T *from = of.chi.const_data_ptr<T>(), *scale = of.chi_scale.const_data_ptr<T>();
    const T floor = static_cast<T>(of.norm_eps * of.norm_eps + 1e-30);
    T *g = g_chi.data_ptr<T>();
    in_ranges(of.chi.size(0), LEAST_ATOMS, [&](int64_t first, int64_t last) {
      each_degree(of, first, last, [&](int64_t n, int64_t l, int64_t order, int64_t end) {
        const T *row = from + n * width;
        T *g_row = g + n * width;
        const T s = square(row, order, end) + floor, factor = scale[l] / std::sqrt(s);
        T along = 0;
        for (auto m = order; m < end; ++m) along += row[m] * g_row[m];
        for (auto m = order; m < end; ++m) g_row[m] = factor * (g_row[m] - row[m] * (along / s));
      });
    });
  }

  /// The invariants of each degree, written to columns of a matrix with rows of `to_width` numbers.
  template <typename T>
  void fill_invariants(const Call &of, const Tensor &chi, T *to, int64_t to_width)
  {
    const auto width = chi.size(1);
    const T *from = chi.const_data_ptr<T>();
    const Invariants<T> invariants(of.degrees, of.squared, of.norm_eps);
    in_ranges(chi.size(0), LEAST_ATOMS, [&](int64_t first, int64_t last) {
      each_degree(of, first, last, [&](int64_t n, int64_t l, int64_t order, int64_t end) {
        to[n * to_width + l] = invariants.value(l, square(from + n * width, order, end));
      });
    });
  }

  /// Adds the adjoint of `fill_invariants` to g_chi.
  template <typename T>
  void add_invariants_adjoint(const Call &of, const Tensor &chi, const T *g, int64_t g_width,
                              const Tensor &g_chi)
  {
    const auto width = chi.size(1);
    const T *from = chi.const_data_ptr<T>();
    T *to = g_chi.data_ptr<T>();
    const Invariants<T> invariants(of.degrees, of.squared, of.norm_eps);
    in_ranges(chi.size(0), LEAST_ATOMS, [&](int64_t first, int64_t last) {
      each_degree(of, first, last, [&](int64_t n, int64_t l, int64_t order, int64_t end) {
        const T *row = from + n * width;
        const T factor = 2 * g[n * g_width + l] * invariants.derivative(l, square(row, order, end));
        for (auto m = order; m < end; ++m) to[n * width + m] += factor * row[m];
      });
    });
  }

  /// Features and SPHCs after the exchange, before the second norm.
  template <typename T>
  std::tuple<Tensor, Tensor> exchanged(const Call &of, const Tensor &h, Saved &s)
  {
    const auto n_atoms = h.size(0), F = h.size(1), L = of.n_degrees(), width = s.chi.size(1);
    const auto input = at::empty({n_atoms, F + L}, h.options());
    input.narrow(1, 0, F).copy_(h);
    fill_invariants<T>(of, s.chi, input.template data_ptr<T>() + F, F + L);
    s.y = at::addmm(of.linear_bias, input, of.linear);
    const auto columns = s.y.size(1), bs = of.mixes() ? 2 * F : F;
    if (of.mixes()) {
      s.mixed = (s.chi.index_select(1, of.left) * s.chi.index_select(1, of.right)).mm(of.mixing);
      const auto invariants = at::empty({n_atoms, L}, h.options());
      fill_invariants<T>(of, s.mixed, invariants.template data_ptr<T>(), L);
      s.a3 = at::addmm(of.mixed_bias, invariants, of.mixed_linear);
    }
    const auto x = at::empty_like(h), chi = at::empty_like(s.chi);
    const T *from = h.const_data_ptr<T>(), *y = s.y.const_data_ptr<T>();
    const T *a3 = of.mixes() ? s.a3.const_data_ptr<T>() : nullptr;
    const T *mixed = of.mixes() ? s.mixed.const_data_ptr<T>() : nullptr;
    const T *old = s.chi.const_data_ptr<T>();
    T *x_to = x.template data_ptr<T>(), *chi_to = chi.template data_ptr<T>();
    const T third = T(1.0 / std::sqrt(3.0));
    in_ranges(n_atoms, LEAST_ATOMS, [&](int64_t first, int64_t last) {
      for (auto n = first; n < last; ++n) {
        const T *a = y + n * columns;
        for (int64_t f = 0; f < F; ++f)
          x_to[n * F + f] = a3 ? third * (from[n * F + f] + a[f] + a[F + f] * a3[n * F + f])
                               : from[n * F + f] + a[f];
      }
      each_degree(of, first, last, [&](int64_t n, int64_t l, int64_t order, int64_t end) {
        const T *b = y + n * columns + bs;
        for (auto k = n * width + order; k < n * width + end; ++k)
          chi_to[k] = (1 + b[l]) * old[k] + (mixed ? b[L + l] * mixed[k] : T(0));
      });
    });
    return {x, chi};
  }

  /// The adjoint of `exchanged`: derivatives by h and by χ after its norm.
  template <typename T>
  std::tuple<Tensor, Tensor> exchange_adjoint(const Call &of, const Saved &s, const Tensor &g_x,
                                              const Tensor &g_chi)
  {
    const auto n_atoms = g_x.size(0), F = g_x.size(1), L = of.n_degrees(), width = s.chi.size(1);
    const auto columns = s.y.size(1), bs = of.mixes() ? 2 * F : F;
    const auto g_y = at::empty_like(s.y), g_old = at::empty_like(s.chi);
    const auto g_mixed = at::empty_like(s.mixed), g_a3 = at::empty_like(s.a3);
    const T *g = g_x.const_data_ptr<T>(), *g_new = g_chi.const_data_ptr<T>();
    const T *y = s.y.const_data_ptr<T>(), *old = s.chi.const_data_ptr<T>();
    const T *a3 = of.mixes() ? s.a3.const_data_ptr<T>() : nullptr;
    const T *mixed = of.mixes() ? s.mixed.const_data_ptr<T>() : nullptr;
    T *to_y = g_y.template data_ptr<T>(), *to_old = g_old.template data_ptr<T>();
    T *to_mixed = of.mixes() ? g_mixed.template data_ptr<T>() : nullptr;
    T *to_a3 = of.mixes() ? g_a3.template data_ptr<T>() : nullptr;
    const T factor = of.mixes() ? T(1.0 / std::sqrt(3.0)) : T(1);
    in_ranges(n_atoms, LEAST_ATOMS, [&](int64_t first, int64_t last) {
      for (auto n = first; n < last; ++n) {
        const T *a = y + n * columns;
        T *g_a = to_y + n * columns;
        for (int64_t f = 0; f < F; ++f) {
          const T each = factor * g[n * F + f];
          g_a[f] = each;
          if (a3) g_a[F + f] = each * a3[n * F + f];
          if (a3) to_a3[n * F + f] = each * a[F + f];
        }
      }
      each_degree(of, first, last, [&](int64_t n, int64_t l, int64_t order, int64_t end) {
        const T *b = y + n * columns + bs;
        T by_b1 = 0, by_b2 = 0;
        for (auto k = n * width + order; k < n * width + end; ++k) {
          by_b1 += g_new[k] * old[k];
          to_old[k] = (1 + b[l]) * g_new[k];
          if (mixed) by_b2 += g_new[k] * mixed[k];
          if (mixed) to_mixed[k] = b[L + l] * g_new[k];
        }
        to_y[n * columns + bs + l] = by_b1;
        if (mixed) to_y[n * columns + bs + L + l] = by_b2;
      });
    });
    if (of.mixes()) {
      const auto g_invariants = g_a3.mm(of.mixed_linear.t());
      add_invariants_adjoint<T>(of, s.mixed, g_invariants.template const_data_ptr<T>(), L, g_mixed);
      const auto g_products = g_mixed.mm(of.mixing.t());
      g_old.index_add_(1, of.left, g_products * s.chi.index_select(1, of.right));
      g_old.index_add_(1, of.right, g_products * s.chi.index_select(1, of.left));
    }
    const auto g_input = g_y.mm(of.linear.t());
    add_invariants_adjoint<T>(of, s.chi, g_input.template const_data_ptr<T>() + F, F + L, g_old);
    const auto direct = of.mixes() ? g_x * (1.0 / std::sqrt(3.0)) : g_x;
    return {direct + g_input.narrow(1, 0, F), g_old};
  }

  template <typename T> std::vector<Tensor> forward_of(const Call &of)
  {
    const auto none = at::empty({0}, of.x.options());
    Saved s = {none, none, of.x, none, of.chi, none, none, none, none, none, none};
    const std::vector<int64_t> shape = {of.x.size(1)};
    if (of.has_norms())
      std::tie(s.h, s.mean1, s.rstd1) =
          at::native_layer_norm(of.x, shape, of.norm1_weight, of.norm1_bias, NORM_EPS);
    auto h = s.h;
    if (of.has_mlp()) {
      s.hidden = at::addmm(of.mlp_first_bias, at::silu(s.h), of.mlp_first);
      h = s.h + at::addmm(of.mlp_second_bias, at::silu(s.hidden), of.mlp_second);
    }
    if (of.has_chi_norm()) s.chi = normalised<T>(of);
    auto [x, chi] = exchanged<T>(of, h, s);
    if (of.has_norms()) {
      s.sum = x;
      std::tie(x, s.mean2, s.rstd2) =
          at::native_layer_norm(s.sum, shape, of.norm2_weight, of.norm2_bias, NORM_EPS);
    }
    std::vector<Tensor> results = {x, chi};
    // results of an operator are no arguments of it
    if (!of.has_norms()) s.h = none;
    if (!of.has_chi_norm()) s.chi = none;
    const auto saved = s.list();
    results.insert(results.end(), saved.begin(), saved.end());
    return results;
  }

  /// Of a layer norm, by its input.
  Tensor norm_adjoint(const Tensor &g, const Tensor &input, const Tensor &mean, const Tensor &rstd,
                      const Tensor &weight, const Tensor &bias)
  {
    return std::get<0>(at::native_layer_norm_backward(g, input, {input.size(1)}, mean, rstd, weight,
                                                      bias, {true, false, false}));
  }

  template <typename T>
  std::vector<Tensor> backward_of(const Call &of, Saved s, Tensor g_x, const Tensor &g_chi)
  {
    if (!of.has_norms()) s.h = of.x;
    if (!of.has_chi_norm()) s.chi = of.chi;
    if (of.has_norms())
      g_x = norm_adjoint(g_x, s.sum, s.mean2, s.rstd2, of.norm2_weight, of.norm2_bias);
    auto [g_h, g_old] = exchange_adjoint<T>(of, s, g_x.contiguous(), g_chi);
    if (of.has_mlp()) {
      const auto g_hidden = at::silu_backward(g_h.mm(of.mlp_second.t()), s.hidden);
      g_h = g_h + at::silu_backward(g_hidden.mm(of.mlp_first.t()), s.h);
    }
    if (of.has_norms())
      g_h = norm_adjoint(g_h, of.x, s.mean1, s.rstd1, of.norm1_weight, of.norm1_bias);
    if (of.has_chi_norm()) normalised_adjoint<T>(of, g_old);
    return {g_h, g_old};
  }

  void forward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const Call of(next);
    AT_DISPATCH_FLOATING_TYPES(of.x.scalar_type(), "so3k::update_forward",
                               [&] { next.give(forward_of<scalar_t>(of)); });
  }

  void backward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const auto given_x = next.optional(), given_chi = next.optional();
    const Saved s = {next.tensor(), next.tensor(), next.tensor(), next.tensor(),
                     next.tensor(), next.tensor(), next.tensor(), next.tensor(),
                     next.tensor(), next.tensor(), next.tensor()};
    const Call of(next);
    const auto g_x = or_zeros(given_x, of.x), g_chi = or_zeros(given_chi, of.chi);
    AT_DISPATCH_FLOATING_TYPES(of.x.scalar_type(), "so3k::update_backward",
                               [&] { next.give(backward_of<scalar_t>(of, s, g_x, g_chi)); });
  }

  void forward_shapes(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const Call of(next);
    const auto n = of.x.size(0);
    const auto some = [&](bool there, std::vector<int64_t> shape) {
      return at::empty(there ? shape : std::vector<int64_t>{0}, of.x.options());
    };
    const auto x = of.x.sizes().vec(), chi = of.chi.sizes().vec();
    next.give({at::empty_like(of.x), at::empty_like(of.chi), some(of.has_norms(), {n, 1}),
               some(of.has_norms(), {n, 1}), some(of.has_norms(), x), some(of.has_mlp(), x),
               some(of.has_chi_norm(), chi), some(true, {n, of.linear.size(1)}),
               some(of.mixes(), chi), some(of.mixes(), x), some(of.has_norms(), x),
               some(of.has_norms(), {n, 1}), some(of.has_norms(), {n, 1})});
  }

  void backward_shapes(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    for (int k = 0; k < 2; ++k) next.optional();
    for (int k = 0; k < Saved::COUNT; ++k) next.tensor();
    const Call of(next);
    next.give({at::empty_like(of.x), at::empty_like(of.chi)});
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  using namespace So3k;
  define_differentiable(library, operators::UPDATE, Saved::COUNT, 2);
  implement_passes<&forward, &backward>(library, "update", c10::DispatchKey::CPU);
  implement_passes<&forward_shapes, &backward_shapes>(library, "update", c10::DispatchKey::Meta);
}
