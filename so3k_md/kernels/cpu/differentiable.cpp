/* so3k-md: operators with an adjoint, by device. MIT. */

#include "differentiable.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>
#include <vector>

using at::Tensor;
using c10::IValue;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using torch::jit::Stack;

namespace So3k {
namespace {

  c10::OperatorHandle operator_of(const std::string &name, const char *suffix)
  {
    return c10::Dispatcher::singleton().findSchemaOrThrow((name + suffix).c_str(), "");
  }

  /// Calls an operator, without autograd history, on arguments from which it removes nothing.
  Stack called(const c10::OperatorHandle &op, Stack stack)
  {
    const at::AutoDispatchBelowADInplaceOrView below;
    op.callBoxed(&stack);
    return stack;
  }

  /// The tensors among arguments, in their order, and the arguments without them: a list as its
  /// length, a tensor as None.
  std::pair<variable_list, std::vector<IValue>> apart(const Stack &arguments)
  {
    std::pair<variable_list, std::vector<IValue>> found;
    auto &[tensors, others] = found;
    for (const auto &argument : arguments) {
      if (argument.isTensor()) {
        tensors.push_back(argument.toTensor());
        others.emplace_back();
      } else if (argument.isTensorList()) {
        const auto list = argument.toTensorVector();
        tensors.insert(tensors.end(), list.begin(), list.end());
        others.emplace_back(static_cast<int64_t>(list.size()));
      } else {
        others.push_back(argument);
      }
    }
    return found;
  }

  /// The arguments from both parts of `apart`.
  Stack together(const c10::FunctionSchema &schema, const variable_list &tensors,
                 const std::vector<IValue> &others)
  {
    Stack arguments;
    auto next = tensors.begin();
    for (std::size_t k = 0; k < others.size(); ++k) {
      const auto kind = schema.arguments()[k].type()->kind();
      if (others[k].isNone()) {
        arguments.emplace_back(*next++);
      } else if (kind == c10::TypeKind::ListType && others[k].isInt()) {
        const auto last = next + others[k].toInt();
        arguments.emplace_back(std::vector<Tensor>(next, last));
        next = last;
      } else {
        arguments.push_back(others[k]);
      }
    }
    return arguments;
  }

  class Node : public torch::autograd::Function<Node> {
   public:
    static variable_list forward(AutogradContext *context, const at::TensorList &tensors,
                                 const std::string &name, const Stack &arguments,
                                 const std::vector<IValue> &others)
    {
      const auto results = called(operator_of(name, "_forward"), arguments);
      const auto n_outputs = operator_of(name, "").schema().returns().size();
      variable_list outputs, saved = tensors.vec(), integers;
      for (std::size_t k = 0; k < results.size(); ++k)
        (k < n_outputs ? outputs : saved).push_back(results[k].toTensor());
      for (const auto &output : outputs)
        if (!output.is_floating_point()) integers.push_back(output);
      context->mark_non_differentiable(integers);
      context->save_for_backward(saved);
      context->saved_data["name"] = name;
      context->saved_data["others"] = c10::ivalue::Tuple::create(std::vector<IValue>(others));
      context->saved_data["n_tensors"] = static_cast<int64_t>(tensors.size());
      return outputs;
    }

    static variable_list backward(AutogradContext *context, const variable_list &gradients)
    {
      const auto name = context->saved_data["name"].toStringRef();
      const auto n_tensors = context->saved_data["n_tensors"].toInt();
      const auto saved = context->get_saved_variables();
      const variable_list tensors(saved.begin(), saved.begin() + n_tensors);
      Stack stack;
      for (const auto &gradient : gradients)
        stack.push_back(gradient.defined() ? IValue(gradient) : IValue());
      for (auto each = saved.begin() + n_tensors; each != saved.end(); ++each)
        stack.emplace_back(*each);
      const auto &elements = context->saved_data["others"].toTupleRef().elements();
      const std::vector<IValue> others(elements.begin(), elements.end());
      const auto arguments = together(operator_of(name, "").schema(), tensors, others);
      stack.insert(stack.end(), arguments.begin(), arguments.end());
      variable_list found;
      for (const auto &result : called(operator_of(name, "_backward"), std::move(stack)))
        found.push_back(result.toTensor());
      found.resize(n_tensors + 3);    // none for the other tensors and for the three last arguments
      return found;
    }
  };

  Stack taken(const c10::OperatorHandle &op, Stack &stack)
  {
    return torch::jit::pop(stack, op.schema().arguments().size());
  }

  /// NAME where derivatives may be wanted.
  void differentiate(const c10::OperatorHandle &op, Stack *stack)
  {
    const auto arguments = taken(op, *stack);
    const auto [tensors, others] = apart(arguments);
    const auto name = op.operator_name().name;
    const at::TensorList inputs(tensors);
    for (auto &output : Node::apply(inputs, name, arguments, others)) stack->emplace_back(output);
  }

  /// NAME where none are.
  void forward_alone(const c10::OperatorHandle &op, Stack *stack)
  {
    auto results = called(operator_of(op.operator_name().name, "_forward"), taken(op, *stack));
    results.resize(op.schema().returns().size());
    stack->insert(stack->end(), results.begin(), results.end());
  }

  void refuse(const c10::OperatorHandle &, Stack *)
  {
    TORCH_CHECK(
        false, "[so3k] compiled kernels are for CPUs, and a tensor is on a GPU: use kernels = off");
  }

  std::string repeated(const std::string &words, int count)
  {
    std::string text;
    for (int k = 0; k < count; ++k) text += (k > 0 ? ", " : "") + words;
    return text;
  }

  std::string numbered(const std::string &words, int count)
  {
    std::string text;
    for (int k = 0; k < count; ++k) text += words + std::to_string(k) + ", ";
    return text;
  }

}    // namespace

void define_differentiable(torch::Library &library, const std::string &schema, int n_saved,
                           int n_gradients)
{
  const auto open = schema.find('('), close = schema.rfind(") -> ");
  const auto name = schema.substr(0, open), arguments = schema.substr(open + 1, close - open - 1);
  int n_results = 0;
  for (auto at = schema.find("Tensor", close); at != std::string::npos;
       at = schema.find("Tensor", at + 1))
    ++n_results;
  library.def(schema.c_str());
  library.def(
      (name + "_forward(" + arguments + ") -> (" + repeated("Tensor", n_results + n_saved) + ")")
          .c_str());
  library.def((name + "_backward(" + numbered("Tensor? g_", n_results) +
               numbered("Tensor saved_", n_saved) + arguments + ") -> (" +
               repeated("Tensor", n_gradients) + ")")
                  .c_str());
  implement<&differentiate>(library, name, c10::DispatchKey::Autograd);
  implement<&forward_alone>(library, name, c10::DispatchKey::CompositeExplicitAutograd);
}

void refuse_others(torch::Library &library, const std::string &name)
{
  implement<&refuse>(library, name, c10::DispatchKey::CUDA);
  implement<&refuse>(library, name, c10::DispatchKey::PrivateUse1);
}

void refuse_passes(torch::Library &library, const std::string &name)
{
  refuse_others(library, name + "_forward");
  refuse_others(library, name + "_backward");
}

}    // namespace So3k
