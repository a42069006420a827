/* so3k-md: repulsion of nuclei, with its adjoint; the equations are those of
 * so3k_md/physics/zbl.py. MIT. */

#include <algorithm>
#include <cmath>
#include <vector>

#include "arguments.h"
#include "cutoff.h"
#include "differentiable.h"
#include "operators.h"
#include "switching.h"

using at::Tensor;
using torch::jit::Stack;

namespace So3k {
namespace {

  /// The arguments, in the order of the schema. All is computed in float64: few pairs are near.
  struct Call {
    Tensor vectors;    // with a derivative
    Tensor idx_i, idx_j, species, decays, shares, power, per_length;
    double reach, ke, cutoff;
    int64_t p, n_centres;

    explicit Call(Arguments &next) :
        vectors(next.tensor(at::kDouble)), idx_i(next.tensor()), idx_j(next.tensor()),
        species(next.tensor()), decays(next.tensor(at::kDouble)), shares(next.tensor(at::kDouble)),
        power(next.tensor(at::kDouble)), per_length(next.tensor(at::kDouble)), reach(next.number()),
        ke(next.number()), cutoff(next.number()), p(next.integer()), n_centres(next.integer())
    {
    }
  };

  /// Energy of an ordered pair and its derivative by the distance.
  class Pair {
   public:
    explicit Pair(const Call &of) :
        cut{of.cutoff, of.p}, decays(of.decays.const_data_ptr<double>()),
        shares(of.shares.const_data_ptr<double>()), n_terms(of.decays.numel()), reach(of.reach),
        ke(of.ke), power(*of.power.const_data_ptr<double>()),
        per_length(*of.per_length.const_data_ptr<double>())
    {
    }

    void operator()(double r, double z_i, double z_j, double &energy, double &derivative) const
    {
      const double a = (std::pow(z_i, power) + std::pow(z_j, power)) * per_length;
      double phi = 0, by_r = 0, c, dc, w, dw;
      for (int64_t k = 0; k < n_terms; ++k) {
        const double term = shares[k] * std::exp(-decays[k] * a * r);
        phi += term;
        by_r -= decays[k] * a * term;
      }
      cut(r, c, dc);
      switched(r, 0.0, reach, w, dw);
      const double charges = 0.5 * ke * z_i * z_j / r;
      energy = charges * phi * c * w;
      derivative = charges * ((by_r - phi / r) * c * w + phi * (dc * w + c * dw));
    }

   private:
    Cutoff<double> cut;
    const double *decays, *shares;
    int64_t n_terms;
    double reach, ke, power, per_length;
  };

  constexpr double SMALLEST = 1e-6;    // Å; keeps atoms at the same position finite

  void forward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const Call of(next);
    const Pair pair(of);
    const auto *v = of.vectors.const_data_ptr<double>();
    const auto *i = of.idx_i.const_data_ptr<int64_t>(), *j = of.idx_j.const_data_ptr<int64_t>();
    const auto *z = of.species.const_data_ptr<int64_t>();
    const auto exact = of.vectors.options();
    const auto energies = at::zeros({of.n_centres}, exact);
    auto *to = energies.data_ptr<double>();
    std::vector<int64_t> near;
    std::vector<double> factors;    // of the vector in the gradient of its pair
    for (int64_t n = 0; n < of.idx_i.numel(); ++n, v += 3) {
      const double square = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
      if (!(square < of.reach * of.reach)) continue;
      const double r = std::max(std::sqrt(square), SMALLEST);
      double energy, derivative;
      pair(r, static_cast<double>(z[i[n]]), static_cast<double>(z[j[n]]), energy, derivative);
      to[i[n]] += energy;
      near.push_back(n);
      factors.push_back(derivative / r);
    }
    next.give({energies, at::tensor(near, of.idx_i.options()), at::tensor(factors, exact)});
  }

  void backward(const c10::OperatorHandle &op, Stack *stack)
  {
    Arguments next(op, *stack);
    const auto given = next.optional();
    const auto near = next.tensor(), factors = next.tensor();
    const Call of(next);
    const auto found = at::zeros_like(of.vectors);
    if (given) {
      const auto energies = given->contiguous();
      const auto *g = energies.const_data_ptr<double>(), *v = of.vectors.const_data_ptr<double>();
      const auto *i = of.idx_i.const_data_ptr<int64_t>();
      const auto *rows = near.const_data_ptr<int64_t>();
      const auto *factor = factors.const_data_ptr<double>();
      auto *to = found.data_ptr<double>();
      for (int64_t k = 0; k < near.numel(); ++k)
        for (auto n = 3 * rows[k]; n < 3 * rows[k] + 3; ++n)
          to[n] = g[i[rows[k]]] * factor[k] * v[n];
    }
    next.give({found});
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  using namespace So3k;
  // no shapes for Meta: the number of near pairs depends on the vectors
  define_differentiable(library, operators::REPULSION, 2, 1);
  implement_passes<&forward, &backward>(library, "repulsion", c10::DispatchKey::CPU);
  refuse_passes(library, "repulsion");
}
