/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#include "recompute.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

namespace So3k {

namespace {

  struct FormulaHolder : torch::CustomClassHolder {
    explicit FormulaHolder(Formula f) : f(std::move(f)) {}
    Formula f;
  };

  struct Recomputed : torch::autograd::Function<Recomputed> {
    static Tensor forward(AutogradContext *context, const at::TensorList &inputs, const Formula &f)
    {
      context->save_for_backward(inputs.vec());
      context->saved_data["f"] = c10::IValue::make_capsule(c10::make_intrusive<FormulaHolder>(f));
      return f(inputs.vec());
    }

    static tensor_list backward(AutogradContext *context, const tensor_list &gradients)
    {
      const auto holder = context->saved_data["f"].toCapsule();
      auto leaves = context->get_saved_variables();
      for (auto &tensor : leaves) tensor = tensor.detach().requires_grad_();
      c10::AutoGradMode with_gradient(true);
      const auto y = static_cast<const FormulaHolder *>(holder.get())->f(leaves);
      tensor_list found(leaves.size());
      if (y.requires_grad())
        found = torch::autograd::grad({y}, leaves, {gradients[0]}, std::nullopt, false,
                                      /*allow_unused=*/true);
      found.emplace_back();    // f has no gradient
      return found;
    }
  };

}    // namespace

Tensor recomputed(const Formula &f, const std::vector<Tensor> &inputs)
{
  const at::TensorList list(inputs);
  return Recomputed::apply(list, f);
}

}    // namespace So3k
