/* so3k-md: the exchange between features and SPHCs of each atom, from live weights, for training.
 * MIT. */

#include <vector>

#include "arguments.h"
#include "rows.h"
#include "threads.h"
#include "twice.h"

#include <torch/library.h>

using at::Tensor;

namespace So3k {
namespace {

  constexpr int64_t LEAST_ATOMS = 64;    // for which another thread pays

  /// Positions among the weights; see UpdateParameters in kernels/training.py.
  enum {
    NORM1 = 0,
    FIRST = 2,
    SECOND = 4,
    CHI_SCALE = 6,
    LINEAR = 7,
    MIXING = 9,
    MIXED = 10,
    NORM2 = 12
  };
  constexpr std::size_t N_INPUTS = 4;

  template <typename T> class Update : public DualOperation<Update<T>> {
    using Self = DualOperation<Update<T>>;
    using Self::g_outputs;
    using Self::inputs;
    using Self::weights;
    using Self::weights_wanted;

   public:
    Update(std::vector<int64_t> order, Invariants<T> invariants, Tensor left, Tensor right) :
        order(std::move(order)), invariants(std::move(invariants)), left(std::move(left)),
        right(std::move(right))
    {
    }

    /// x and χ after the layer, from x, Δx, χ and Δχ.
    template <bool D> std::vector<Tensor> forward_pass()
    {
      if constexpr (!D) g_outputs.resize(2);
      sum.part(D) = inputs[0].part(D) + inputs[1].part(D);
      chi_sum.part(D) = inputs[2].part(D) + inputs[3].part(D);
      h.part(D) = has(NORM1) ? normed<D>(sum, NORM1) : sum.part(D);
      m.part(D) = has(FIRST) ? through_mlp<D>() : h.part(D);
      chi.part(D) = has(CHI_SCALE) ? normed_chi<D>() : chi_sum.part(D);
      const auto F = width(), L = degrees();
      input.part(D) = at::empty({rows(), F + L}, m.v.options());
      input.part(D).narrow(1, 0, F).copy_(m.part(D));
      fill_invariants<D>(chi, input.part(D), F);
      y.part(D) = linear<D>(input, weights[LINEAR], weights[LINEAR + 1]);
      if (mixes()) {
        products.part(D) = products_of<D>();
        mixed.part(D) = linear<D>(products, weights[MIXING], weights[CHI_SCALE].narrow(0, 0, 0));
        squares.part(D) = at::empty({rows(), L}, m.v.options());
        fill_invariants<D>(mixed, squares.part(D), 0);
        a3.part(D) = linear<D>(squares, weights[MIXED], weights[MIXED + 1]);
      }
      return mixes() ? exchanged<D, true>() : exchanged<D, false>();
    }

    template <bool D> std::vector<Tensor> backward_pass()
    {
      std::vector<Tensor> found(N_INPUTS + weights.size());
      g_last.part(D) =
          has(NORM2) ? norm_adjoint<D>(last, g_outputs[0], NORM2, found) : g_outputs[0].part(D);
      if (mixes())
        exchange_adjoint<D, true>();
      else
        exchange_adjoint<D, false>();
      if (mixes()) mix_adjoint<D>(found);
      const auto F = width();
      g_input.part(D) = by_input<D>(g_y, weights[LINEAR]);
      linear_weights<D>(input, g_y, LINEAR, found);
      add_invariants_adjoint<D>(chi, g_input, F, g_chi);
      g_m.part(D) = at::add(g_input.part(D).narrow(1, 0, F), g_last.part(D),
                            mixes() ? ExchangeRow<T, D, true>::factor() : T(1));
      g_h.part(D) = has(FIRST) ? mlp_adjoint<D>(found) : g_m.part(D);
      found[0] = found[1] = has(NORM1) ? norm_adjoint<D>(sum, g_h, NORM1, found) : g_h.part(D);
      found[2] = found[3] = has(CHI_SCALE) ? chi_norm_adjoint<D>(found) : g_chi.part(D);
      return found;
    }

   private:
    bool has(int which) const { return weights[which].numel() > 0; }
    bool mixes() const { return has(MIXED); }
    int64_t rows() const { return inputs[0].v.size(0); }
    int64_t width() const { return inputs[0].v.size(1); }
    int64_t orders() const { return order.back(); }
    int64_t degrees() const { return static_cast<int64_t>(order.size()) - 1; }
    const T *numbers(int which) const { return weights[which].template const_data_ptr<T>(); }

    template <typename Work> void each_row(Work work) const
    {
      in_ranges(rows(), LEAST_ATOMS, [&](int64_t first, int64_t last) {
        for (auto n = first; n < last; ++n) work(n);
      });
    }

    template <bool D> Tensor normed(const DualTensor &of, int which) const
    {
      const auto to = at::empty_like(of.v);
      const Reader<T, D> x(of);
      T *at = to.template data_ptr<T>();
      const RowNorm<T, D> norm = {width(), numbers(which)};
      each_row([&](int64_t n) {
        norm.forward(x.from(n * width()), numbers(which + 1), at + n * width());
      });
      return to;
    }
    template <bool D>
    Tensor norm_adjoint(const DualTensor &of, const DualTensor &g_of, int which,
                        std::vector<Tensor> &found) const
    {
      const auto to = at::empty_like(of.v), by_weight = at::zeros_like(weights[which]);
      const Reader<T, D> x(of), g(g_of);
      T *at = to.template data_ptr<T>();
      const RowNorm<T, D> norm = {width(), numbers(which)};
      const auto parts = parts_of(rows(), LEAST_ATOMS);
      const PartialSums<T> sums(by_weight, parts);
      in_parts(parts, [&](int64_t part) {
        for (auto n = bound(rows(), parts, part); n < bound(rows(), parts, part + 1); ++n)
          norm.backward(x.from(n * width()), g.from(n * width()), at + n * width(), sums.of(part));
      });
      sums.add();
      if (weights_wanted) {
        found[N_INPUTS + which] = by_weight;
        found[N_INPUTS + which + 1] = by_bias<D>(g_of, weights[which + 1]);
      }
      return to;
    }

    template <bool D> Tensor through_mlp()
    {
      a1.part(D) = silu<D>(h);
      z.part(D) = linear<D>(a1, weights[FIRST], weights[FIRST + 1]);
      a2.part(D) = silu<D>(z);
      return h.part(D) + linear<D>(a2, weights[SECOND], weights[SECOND + 1]);
    }
    template <bool D> Tensor mlp_adjoint(std::vector<Tensor> &found)
    {
      g_a2.part(D) = by_input<D>(g_m, weights[SECOND]);
      linear_weights<D>(a2, g_m, SECOND, found);
      g_z.part(D) = silu_adjoint<T, D>(g_a2, z);
      g_a1.part(D) = by_input<D>(g_z, weights[FIRST]);
      linear_weights<D>(a1, g_z, FIRST, found);
      return g_m.part(D) + silu_adjoint<T, D>(g_a1, h);
    }
    template <bool D>
    void linear_weights(const DualTensor &x, const DualTensor &g, int which,
                        std::vector<Tensor> &found) const
    {
      if (!weights_wanted) return;
      found[N_INPUTS + which] = by_weight<D>(x, g);
      found[N_INPUTS + which + 1] = by_bias<D>(g, weights[which + 1]);
    }

    template <bool D> Tensor normed_chi() const
    {
      const auto to = at::empty_like(chi_sum.v);
      const Reader<T, D> from(chi_sum);
      T *at = to.template data_ptr<T>();
      const ChiRow<T, D> row = {order, invariants};
      each_row([&](int64_t n) {
        row.norm(from.from(n * orders()), numbers(CHI_SCALE), at + n * orders());
      });
      return to;
    }
    template <bool D> Tensor chi_norm_adjoint(std::vector<Tensor> &found) const
    {
      const auto to = at::empty_like(chi_sum.v), by_scale = at::zeros_like(weights[CHI_SCALE]);
      const Reader<T, D> from(chi_sum), g(g_chi);
      T *at = to.template data_ptr<T>(), *sums = by_scale.template data_ptr<T>();
      const ChiRow<T, D> row = {order, invariants};
      for (int64_t n = 0; n < rows(); ++n)
        row.norm_adjoint(from.from(n * orders()), g.from(n * orders()), numbers(CHI_SCALE),
                         at + n * orders(), sums);
      if (weights_wanted) found[N_INPUTS + CHI_SCALE] = by_scale;
      return to;
    }

    /// Invariants of χ in some columns of a matrix.
    template <bool D>
    void fill_invariants(const DualTensor &of, const Tensor &to, int64_t column) const
    {
      const Reader<T, D> from(of);
      const auto columns = to.size(1);
      T *at = to.data_ptr<T>() + column;
      const ChiRow<T, D> row = {order, invariants};
      each_row([&](int64_t n) { row.invariant(from.from(n * orders()), at + n * columns); });
    }
    template <bool D>
    void add_invariants_adjoint(const DualTensor &of, const DualTensor &g_of, int64_t column,
                                DualTensor &to) const
    {
      const Reader<T, D> from(of), g(g_of);
      const auto columns = g_of.v.size(1);
      T *at = to.part(D).template data_ptr<T>();
      const ChiRow<T, D> row = {order, invariants};
      each_row([&](int64_t n) {
        row.invariant_adjoint(from.from(n * orders()), g.from(n * columns + column),
                              at + n * orders());
      });
    }

    /// χ_a χ_b of all pairs of components that SelfMix couples.
    template <bool D> Tensor products_of() const
    {
      const auto n_products = left.size(0);
      const auto to = at::empty({rows(), n_products}, chi.v.options());
      const Reader<T, D> from(chi);
      T *at = to.template data_ptr<T>();
      const auto *a = left.const_data_ptr<int64_t>(), *b = right.const_data_ptr<int64_t>();
      each_row([&](int64_t n) {
        const auto row = from.from(n * orders());
        for (int64_t k = 0; k < n_products; ++k)
          at[n * n_products + k] = part(row.at(a[k]) * row.at(b[k]));
      });
      return to;
    }
    /// The adjoint of SelfMix; adds to the derivative by χ.
    template <bool D> void mix_adjoint(std::vector<Tensor> &found)
    {
      g_squares.part(D) = by_input<D>(g_a3, weights[MIXED]);
      linear_weights<D>(squares, g_a3, MIXED, found);
      add_invariants_adjoint<D>(mixed, g_squares, 0, g_mixed);
      g_products.part(D) = by_input<D>(g_mixed, weights[MIXING]);
      if (weights_wanted) found[N_INPUTS + MIXING] = by_weight<D>(products, g_mixed);
      const auto n_products = left.size(0);
      const Reader<T, D> g(g_products), from(chi);
      T *to = g_chi.part(D).template data_ptr<T>();
      const auto *a = left.const_data_ptr<int64_t>(), *b = right.const_data_ptr<int64_t>();
      each_row([&](int64_t n) {
        const auto row = from.from(n * orders()), g_row = g.from(n * n_products);
        for (int64_t k = 0; k < n_products; ++k) {
          add(to + n * orders() + a[k], g_row.at(k) * row.at(b[k]));
          add(to + n * orders() + b[k], g_row.at(k) * row.at(a[k]));
        }
      });
    }

    template <bool D, bool MIXES> std::vector<Tensor> exchanged()
    {
      last.part(D) = at::empty_like(m.v);
      const auto new_chi = at::empty_like(chi.v);
      const auto F = width(), columns = y.v.size(1);
      const Reader<T, D> at_m(m), at_chi(chi), at_y(y), at_a3(MIXES ? a3 : m);
      const Reader<T, D> at_mixed(MIXES ? mixed : chi);
      T *to_x = last.part(D).template data_ptr<T>(), *to_chi = new_chi.template data_ptr<T>();
      const ExchangeRow<T, D, MIXES> row = {F, order};
      each_row([&](int64_t n) {
        const auto y_n = at_y.from(n * columns);
        row.features(at_m.from(n * F), y_n, at_a3.from(n * F), to_x + n * F);
        row.chi(at_chi.from(n * orders()), y_n, at_mixed.from(n * orders()), to_chi + n * orders());
      });
      return {has(NORM2) ? normed<D>(last, NORM2) : last.part(D), new_chi};
    }
    template <bool D, bool MIXES> void exchange_adjoint()
    {
      g_y.part(D) = at::empty_like(y.v), g_chi.part(D) = at::empty_like(chi.v);
      if (MIXES) g_a3.part(D) = at::empty_like(a3.v), g_mixed.part(D) = at::empty_like(mixed.v);
      const auto F = width(), columns = y.v.size(1);
      const Reader<T, D> g_x(g_last), g_out(g_outputs[1]), at_chi(chi), at_y(y),
          at_a3(MIXES ? a3 : m);
      const Reader<T, D> at_mixed(MIXES ? mixed : chi);
      T *to_y = g_y.part(D).template data_ptr<T>(), *to_chi = g_chi.part(D).template data_ptr<T>();
      T *to_a3 = MIXES ? g_a3.part(D).template data_ptr<T>() : nullptr;
      T *to_mixed = MIXES ? g_mixed.part(D).template data_ptr<T>() : nullptr;
      const ExchangeRow<T, D, MIXES> row = {F, order};
      each_row([&](int64_t n) {
        const auto y_n = at_y.from(n * columns);
        row.features_adjoint(g_x.from(n * F), y_n, at_a3.from(n * F), to_y + n * columns,
                             MIXES ? to_a3 + n * F : nullptr);
        row.chi_adjoint(g_out.from(n * orders()), at_chi.from(n * orders()), y_n,
                        at_mixed.from(n * orders()), to_y + n * columns, to_chi + n * orders(),
                        MIXES ? to_mixed + n * orders() : nullptr);
      });
    }

    std::vector<int64_t> order;
    Invariants<T> invariants;
    Tensor left, right;
    DualTensor sum, chi_sum, h, a1, z, a2, m, chi, input, y, products, mixed, squares, a3, last;
    DualTensor g_last, g_y, g_a3, g_mixed, g_squares, g_products, g_chi, g_input, g_m, g_a2, g_z,
        g_a1, g_h;
  };

  std::vector<Tensor> update(const std::vector<Tensor> &inputs, const std::vector<Tensor> &weights,
                             const Tensor &left, const Tensor &right, std::vector<int64_t> degrees,
                             bool squared, double norm_eps)
  {
    const auto type = inputs.at(0).scalar_type();
    require_precision(type);
    std::vector<int64_t> order = {0};
    for (const auto degree : degrees) order.push_back(order.back() + 2 * degree + 1);
    const auto made = [&](auto number) -> c10::intrusive_ptr<Operation> {
      using T = decltype(number);
      return c10::make_intrusive<Update<T>>(order, Invariants<T>(degrees, squared, norm_eps), left,
                                            right);
    };
    return call(type == at::kFloat ? made(float()) : made(double()), inputs, weights);
  }

  /// silu(x U + a) V + b of rows.
  template <typename T> class Mlp : public DualOperation<Mlp<T>> {
    using Self = DualOperation<Mlp<T>>;
    using Self::g_outputs;
    using Self::inputs;
    using Self::weights;
    using Self::weights_wanted;

   public:
    template <bool D> std::vector<Tensor> forward_pass()
    {
      if constexpr (!D) g_outputs.resize(1);
      z.part(D) = linear<D>(inputs[0], weights[0], weights[1]);
      active.part(D) = silu<D>(z);
      return {linear<D>(active, weights[2], weights[3])};
    }

    template <bool D> std::vector<Tensor> backward_pass()
    {
      const auto &g = g_outputs[0];
      g_active.part(D) = by_input<D>(g, weights[2]);
      g_z.part(D) = silu_adjoint<T, D>(g_active, z);
      std::vector<Tensor> found = {by_input<D>(g_z, weights[0])};
      found.resize(1 + weights.size());
      if (weights_wanted) {
        found[1] = by_weight<D>(inputs[0], g_z), found[2] = by_bias<D>(g_z, weights[1]);
        found[3] = by_weight<D>(active, g), found[4] = by_bias<D>(g, weights[3]);
      }
      return found;
    }

   private:
    DualTensor z, active, g_active, g_z;
  };

  Tensor mlp(const Tensor &x, const std::vector<Tensor> &weights)
  {
    require_precision(x.scalar_type());
    if (x.scalar_type() == at::kFloat)
      return call(c10::make_intrusive<Mlp<float>>(), {x}, weights).at(0);
    return call(c10::make_intrusive<Mlp<double>>(), {x}, weights).at(0);
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  library.def(
      "train_update(Tensor[] inputs, Tensor[] weights, Tensor left, Tensor right, int[] degrees, "
      "bool squared, float norm_eps) -> Tensor[]",
      &So3k::update);
  library.def("train_mlp(Tensor x, Tensor[] weights) -> Tensor", &So3k::mlp);
}
