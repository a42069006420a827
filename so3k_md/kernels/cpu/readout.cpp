/* so3k-md: energies, charges and Hirshfeld ratios of atoms from their last features, with the
 * adjoint; the equations are those of so3k_md/nn/readout.py. MIT. */

#include <cmath>
#include <vector>

#include "arguments.h"
#include "differentiable.h"
#include "operators.h"

using at::Tensor;
using torch::jit::Stack;

namespace So3k {
namespace {

  /// Weights of Lin(σ(Lin(x))); empty in a model without this head.
  struct Mlp {
    Tensor hidden, hidden_bias, out, out_bias;

    explicit Mlp(Arguments &next) :
        hidden(next.tensor()), hidden_bias(next.tensor()), out(next.tensor()),
        out_bias(next.tensor())
    {
    }

    bool exists() const { return hidden.numel() > 0; }

    /// The hidden layer before the activation function.
    Tensor inside(const Tensor &x) const
    {
      return exists() ? at::addmm(hidden_bias, x, hidden) : at::empty({0}, x.options());
    }

    Tensor result(const Tensor &inside) const { return at::addmm(out_bias, at::silu(inside), out); }

    /// The derivative by x.
    Tensor adjoint(const Tensor &inside, const Tensor &g) const
    {
      return at::silu_backward(g.mm(out.t()), inside).mm(hidden.t());
    }
  };

  /// The arguments, in the order of the schema.
  struct Call {
    Tensor x;    // with a derivative
    Tensor species;
    Mlp energy;
    Tensor energy_scale, energy_shift;    // of each element, float64
    Mlp charge;
    Tensor charge_table;
    Mlp ratio;
    Tensor ratio_query, ratio_shift;
    double ratio_scale;

    explicit Call(Arguments &next) :
        x(next.tensor()), species(next.tensor()), energy(next),
        energy_scale(next.tensor(at::kDouble)), energy_shift(next.tensor(at::kDouble)),
        charge(next), charge_table(next.tensor()), ratio(next), ratio_query(next.tensor()),
        ratio_shift(next.tensor()), ratio_scale(next.number())
    {
      require_precision(x.scalar_type());
    }

    int64_t n_atoms() const { return x.size(0); }
    int64_t element(int64_t n) const { return species.const_data_ptr<int64_t>()[n]; }
  };

  struct Results {
    Tensor energies, charges, ratios;

    explicit Results(const Call &of) :
        energies(at::empty({of.n_atoms()}, of.x.options().dtype(at::kDouble))),
        charges(at::empty({of.charge.exists() ? of.n_atoms() : 0}, of.x.options())),
        ratios(at::empty({of.ratio.exists() ? of.n_atoms() : 0}, of.x.options()))
    {
    }
  };

  /// Tensors that the backward pass reads.
  struct Saved {
    Tensor energy, charge, ratio;    // hidden layers
    Tensor sign;                     // of the ratio before its absolute value is taken

    static constexpr int COUNT = 4;
    std::vector<Tensor> list() const { return {energy, charge, ratio, sign}; }
  };

  template <typename T> void fill_energies(const Call &of, const Saved &saved, const Results &to)
  {
    const auto raw = of.energy.result(saved.energy);
    const T *each = raw.template const_data_ptr<T>();
    const double *scale = of.energy_scale.const_data_ptr<double>();
    const double *shift = of.energy_shift.const_data_ptr<double>();
    for (int64_t n = 0; n < of.n_atoms(); ++n)
      to.energies.data_ptr<double>()[n] =
          scale[of.element(n)] * static_cast<double>(each[n]) + shift[of.element(n)];
  }

  template <typename T> void fill_charges(const Call &of, const Saved &saved, const Results &to)
  {
    const auto raw = of.charge.result(saved.charge);
    const T *each = raw.template const_data_ptr<T>();
    const T *table = of.charge_table.const_data_ptr<T>();
    for (int64_t n = 0; n < of.n_atoms(); ++n)
      to.charges.template data_ptr<T>()[n] = each[n] + table[of.element(n)];
  }

  template <typename T> void fill_ratios(const Call &of, Saved &saved, const Results &to)
  {
    const auto keys = of.ratio.result(saved.ratio);
    const auto width = keys.size(1);
    const T *shift = of.ratio_shift.const_data_ptr<T>();
    const T scale = static_cast<T>(of.ratio_scale);
    for (int64_t n = 0; n < of.n_atoms(); ++n) {
      const T *key = keys.template const_data_ptr<T>() + n * width;
      const T *query = of.ratio_query.const_data_ptr<T>() + of.element(n) * width;
      T product = 0;
#pragma omp simd reduction(+ : product)
      for (int64_t k = 0; k < width; ++k) product += query[k] * key[k];
      const T ratio = shift[of.element(n)] + product * scale;
      to.ratios.template data_ptr<T>()[n] = std::abs(ratio);
      saved.sign.template data_ptr<T>()[n] = ratio > 0 ? T(1) : ratio < 0 ? T(-1) : T(0);
    }
  }

  Saved saved_of(const Call &of)
  {
    return {of.energy.inside(of.x), of.charge.inside(of.x), of.ratio.inside(of.x),
            at::empty({of.ratio.exists() ? of.n_atoms() : 0}, of.x.options())};
  }

  std::vector<Tensor> outputs(const Results &results, const Saved &saved)
  {
    std::vector<Tensor> all = {results.energies, results.charges, results.ratios};
    const auto list = saved.list();
    all.insert(all.end(), list.begin(), list.end());
    return all;
  }

  void forward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const Call of(next);
    const Results to(of);
    auto saved = saved_of(of);
    AT_DISPATCH_FLOATING_TYPES(of.x.scalar_type(), "so3k::heads_forward", [&] {
      fill_energies<scalar_t>(of, saved, to);
      if (of.charge.exists()) fill_charges<scalar_t>(of, saved, to);
      if (of.ratio.exists()) fill_ratios<scalar_t>(of, saved, to);
    });
    next.give(outputs(to, saved));
  }

  void forward_shapes(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const Call of(next);
    next.give(outputs(Results(of), saved_of(of)));
  }

  /// The derivative by the output of the MLP of energies: g s[Z].
  template <typename T> Tensor scaled(const Call &of, const Tensor &g_energies)
  {
    const auto found = at::empty({of.n_atoms(), 1}, of.x.options());
    const double *g = g_energies.const_data_ptr<double>();
    const double *scale = of.energy_scale.const_data_ptr<double>();
    for (int64_t n = 0; n < of.n_atoms(); ++n)
      found.template data_ptr<T>()[n] = static_cast<T>(g[n] * scale[of.element(n)]);
    return found;
  }

  /// The derivative by the output of the MLP of ratios: ±g q[Z] / √D.
  template <typename T>
  Tensor along_query(const Call &of, const Tensor &g_ratios, const Tensor &sign)
  {
    const auto width = of.ratio_query.size(1);
    const auto found = at::empty({of.n_atoms(), width}, of.x.options());
    for (int64_t n = 0; n < of.n_atoms(); ++n) {
      const T g = g_ratios.const_data_ptr<T>()[n] * sign.const_data_ptr<T>()[n] *
          static_cast<T>(of.ratio_scale);
      const T *query = of.ratio_query.const_data_ptr<T>() + of.element(n) * width;
      T *to = found.template data_ptr<T>() + n * width;
      for (int64_t k = 0; k < width; ++k) to[k] = g * query[k];
    }
    return found;
  }

  void backward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const auto g_energies = next.optional(), g_charges = next.optional(),
               g_ratios = next.optional();
    const Saved saved = {next.tensor(), next.tensor(), next.tensor(), next.tensor()};
    const Call of(next);
    auto g_x = at::zeros_like(of.x);
    AT_DISPATCH_FLOATING_TYPES(of.x.scalar_type(), "so3k::heads_backward", [&] {
      if (g_energies)
        g_x += of.energy.adjoint(saved.energy, scaled<scalar_t>(of, g_energies->contiguous()));
      if (g_charges && of.charge.exists())
        g_x += of.charge.adjoint(saved.charge, g_charges->contiguous().unsqueeze(1));
      if (g_ratios && of.ratio.exists())
        g_x += of.ratio.adjoint(saved.ratio,
                                along_query<scalar_t>(of, g_ratios->contiguous(), saved.sign));
    });
    next.give({g_x});
  }

  void backward_shapes(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    for (int k = 0; k < 3; ++k) next.optional();
    for (int k = 0; k < Saved::COUNT; ++k) next.tensor();
    const Call of(next);
    next.give({at::empty_like(of.x)});
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  using namespace So3k;
  define_differentiable(library, operators::HEADS, Saved::COUNT, 1);
  implement_passes<&forward, &backward>(library, "heads", c10::DispatchKey::CPU);
  implement_passes<&forward_shapes, &backward_shapes>(library, "heads", c10::DispatchKey::Meta);
  refuse_passes(library, "heads");
}
