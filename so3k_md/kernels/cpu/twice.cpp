/* so3k-md: the autograd nodes of operators that can be differentiated twice. MIT. */

#include "twice.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace So3k {
namespace {

  using Shared = c10::intrusive_ptr<Operation>;

  /// An operation in a node of autograd.
  struct Held : torch::CustomClassHolder {
    Shared operation;
    std::vector<Shared>
        open;    // adjoints whose derivatives the backward pass in progress still needs
  };
  using Holder = c10::intrusive_ptr<Held>;

  void hold(AutogradContext *context, const char *name, const Holder &holder)
  {
    context->saved_data[name] = c10::IValue::make_capsule(holder);
  }
  Holder held(AutogradContext *context, const char *name)
  {
    return c10::static_intrusive_pointer_cast<Held>(context->saved_data[name].toCapsule());
  }
  Holder holder_of(Shared operation)
  {
    auto holder = c10::make_intrusive<Held>();
    holder->operation = std::move(operation);
    return holder;
  }

  /// The adjoint of an operation, as a function of the derivatives by the outputs.
  class Adjoint : public Function<Adjoint> {
   public:
    /// Tensors: derivatives by the outputs, then the outputs, which have the node of the operation.
    /// Results: the derivatives by the wanted inputs.
    static variable_list forward(AutogradContext *context, const at::TensorList &tensors,
                                 const Holder &whole, const std::vector<bool> &wanted)
    {
      const at::AutoDispatchBelowADInplaceOrView below;
      const auto own = holder_of(whole->operation->copy());
      auto &operation = *own->operation;
      for (std::size_t k = 0; k < operation.g_outputs.size(); ++k)
        operation.g_outputs[k].v = tensors[k].detach().contiguous();
      operation.wanted = wanted;
      operation.weights_wanted = false;
      const auto found = operation.backward(false);
      variable_list results;
      for (std::size_t k = 0; k < wanted.size(); ++k)
        if (wanted[k]) results.push_back(found[k]);
      hold(context, "own", own);
      hold(context, "whole", whole);
      return results;
    }

    /// The derivatives by the derivatives by the outputs. Those by inputs and weights follow in the
    /// node of the operation, together with its own: the outputs as arguments let it run later.
    static variable_list backward(AutogradContext *context, const variable_list &directions)
    {
      TORCH_CHECK(!at::GradMode::is_enabled(),
                  "[so3k] the kernels for training have no third derivatives: use kernels = off");
      const at::AutoDispatchBelowADInplaceOrView below;
      const auto whole = held(context, "whole");
      const auto operation = held(context, "own")->operation->copy();
      std::size_t next = 0;
      for (std::size_t k = 0; k < operation->inputs.size(); ++k) {
        auto &input = operation->inputs[k];
        input.d = operation->wanted[k] ? directions[next++].contiguous() : at::zeros_like(input.v);
      }
      variable_list found = operation->forward(true);
      const auto n = found.size();
      bool follows = false;
      for (std::size_t k = n; k < 2 * n; ++k) follows = follows || context->needs_input_grad(k);
      if (follows) whole->open.push_back(operation);
      found.resize(2 * n + 2);    // none for the outputs and for the two last arguments
      return found;
    }
  };

  /// An operation as a function of its inputs and weights.
  class Value : public Function<Value> {
   public:
    static variable_list forward(AutogradContext *context, const at::TensorList &tensors,
                                 const Shared &operation)
    {
      const at::AutoDispatchBelowADInplaceOrView below;
      const auto results = operation->forward(false);
      auto saved = tensors.vec();
      saved.insert(saved.end(), results.begin(), results.end());
      context->save_for_backward(saved);
      hold(context, "whole", holder_of(operation));
      return results;
    }

    static variable_list backward(AutogradContext *context, const variable_list &gradients)
    {
      const auto whole = held(context, "whole");
      const auto &operation = *whole->operation;
      const auto n_inputs = operation.inputs.size(), n_weights = operation.weights.size();
      const auto saved = context->get_saved_variables();    // unchanged since the forward pass
      std::vector<bool> wanted;
      for (std::size_t k = 0; k < n_inputs; ++k) wanted.push_back(context->needs_input_grad(k));
      bool weights_wanted = false;
      for (std::size_t k = 0; k < n_weights; ++k)
        weights_wanted = weights_wanted || context->needs_input_grad(n_inputs + k);
      variable_list found;
      if (at::GradMode::is_enabled()) {
        TORCH_CHECK(
            !weights_wanted,
            "[so3k] the kernels for training differentiate twice by inputs, not by weights: "
            "use kernels = off");
        variable_list tensors = gradients;
        tensors.insert(tensors.end(), saved.end() - gradients.size(), saved.end());
        const auto results = Adjoint::apply(at::TensorList(tensors), whole, wanted);
        std::size_t next = 0;
        for (const auto each : wanted) found.push_back(each ? results[next++] : Tensor());
      } else {
        const at::AutoDispatchBelowADInplaceOrView below;
        found = first_order(*whole, gradients, wanted, weights_wanted);
      }
      found.resize(n_inputs + n_weights + 1);
      return found;
    }

   private:
    static variable_list first_order(Held &whole, const variable_list &gradients,
                                     const std::vector<bool> &wanted, bool weights_wanted)
    {
      auto open = std::exchange(whole.open, {});
      const bool dual = !open.empty();
      if (!dual) open.push_back(whole.operation->copy());
      variable_list sum;
      for (const auto &operation : open) {
        for (std::size_t k = 0; k < gradients.size(); ++k) {
          const auto g = gradients[k].contiguous();
          operation->g_outputs[k].part(dual) = sum.empty() ? g : at::zeros_like(g);
        }
        operation->wanted = wanted;
        operation->weights_wanted = weights_wanted;
        auto found = operation->backward(dual);
        if (sum.empty())
          sum = std::move(found);
        else
          for (std::size_t k = 0; k < sum.size(); ++k)
            if (sum[k].defined()) sum[k] = sum[k] + found[k];
      }
      return sum;
    }
  };

}    // namespace

std::vector<Tensor> call(Shared operation, const std::vector<Tensor> &inputs,
                         const std::vector<Tensor> &weights)
{
  std::vector<Tensor> tensors;
  for (const auto &input : inputs) {
    tensors.push_back(input);
    operation->inputs.push_back({input.detach().contiguous(), {}});
  }
  for (const auto &weight : weights) {
    tensors.push_back(weight);
    operation->weights.push_back(weight.detach().contiguous());
  }
  return Value::apply(at::TensorList(tensors), operation);
}

}    // namespace So3k
