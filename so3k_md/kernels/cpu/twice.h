/* so3k-md: operators that can be differentiated twice, for training. MIT. */

#ifndef SO3K_TWICE_H
#define SO3K_TWICE_H

#include <ATen/ATen.h>

#include <vector>

#include "dual.h"

namespace So3k {

/// A function of some inputs and weights, its adjoint, and both in dual numbers.
///
/// Forces are the adjoint of the energy, so that the gradient of a loss of forces needs the
/// derivative of an adjoint. With g the derivative by the outputs and a direction u of the inputs,
///
///   ∂/∂(x, w) ⟨u, ∂⟨g, f(x, w)⟩/∂x⟩ = d/dε ∂/∂(x, w) ⟨g, f(x + ε u, w)⟩,
///
/// which is the ε-part of the adjoint in dual numbers.
class Operation : public c10::intrusive_ptr_target {
 public:
  std::vector<DualTensor> inputs, g_outputs;    // set before a pass
  std::vector<at::Tensor> weights;
  std::vector<bool> wanted;    // of the inputs, whose derivatives the adjoint is to find
  bool weights_wanted = false;

  /// The results, or their derivatives along the direction of the inputs.
  virtual std::vector<at::Tensor> forward(bool dual) = 0;
  /// The derivatives by the inputs and, if they are wanted, by the weights; or the ε-parts of both.
  virtual std::vector<at::Tensor> backward(bool dual) = 0;
  virtual c10::intrusive_ptr<Operation> copy() const = 0;
};

/// Calls an operation, in the autograd history of its inputs and weights.
std::vector<at::Tensor> call(c10::intrusive_ptr<Operation> operation,
                             const std::vector<at::Tensor> &inputs,
                             const std::vector<at::Tensor> &weights);

/// An operation whose passes are templates `forward_pass<D>` and `backward_pass<D>` of Own.
template <typename Own> class DualOperation : public Operation {
 public:
  std::vector<at::Tensor> forward(bool dual) override
  {
    return dual ? own().template forward_pass<true>() : own().template forward_pass<false>();
  }
  std::vector<at::Tensor> backward(bool dual) override
  {
    return dual ? own().template backward_pass<true>() : own().template backward_pass<false>();
  }
  c10::intrusive_ptr<Operation> copy() const override
  {
    return c10::make_intrusive<Own>(static_cast<const Own &>(*this));
  }

 private:
  Own &own() { return static_cast<Own &>(*this); }
};

/// x W + b, or its derivative; b may be empty.
template <bool D>
at::Tensor linear(const DualTensor &x, const at::Tensor &weight, const at::Tensor &bias)
{
  if (D || bias.numel() == 0) return at::mm(x.part(D), weight);
  return at::addmm(bias, x.v, weight);
}

/// The derivative by x of ⟨g, x W⟩.
template <bool D> at::Tensor by_input(const DualTensor &g, const at::Tensor &weight)
{
  return at::mm(g.part(D), weight.t());
}

/// The derivative by W of ⟨g, x W⟩.
template <bool D> at::Tensor by_weight(const DualTensor &x, const DualTensor &g)
{
  if constexpr (D)
    return at::mm(x.d.t(), g.v).addmm_(x.v.t(), g.d);
  else
    return at::mm(x.v.t(), g.v);
}

/// The derivative by b of ⟨g, x W + b⟩; empty if there is no bias.
template <bool D> at::Tensor by_bias(const DualTensor &g, const at::Tensor &bias)
{
  return bias.numel() == 0 ? at::zeros_like(bias) : g.part(D).sum(0);
}

/// silu(z) = z / (1 + exp(−z)).
template <bool D> at::Tensor silu(const DualTensor &z)
{
  return D ? at::silu_backward(z.d, z.v) : at::silu(z.v);
}

/// The derivative by z of ⟨g, silu(z)⟩.
template <typename T, bool D> at::Tensor silu_adjoint(const DualTensor &g, const DualTensor &z)
{
  auto found = at::silu_backward(g.part(D), z.v);
  if constexpr (D) {
    const auto share = at::sigmoid(z.v);
    const T *s = share.const_data_ptr<T>(), *v = z.v.const_data_ptr<T>();
    const T *d = z.d.const_data_ptr<T>(), *g_v = g.v.const_data_ptr<T>();
    T *to = found.template data_ptr<T>();
    const auto n = found.numel();
#pragma omp simd
    for (int64_t k = 0; k < n; ++k)
      to[k] += g_v[k] * d[k] * s[k] * (1 - s[k]) * (2 + v[k] * (1 - 2 * s[k]));
  }
  return found;
}

}    // namespace So3k

#endif
