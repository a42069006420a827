/* so3k-md: the arguments of an operator, in the order of its schema. MIT. */

#ifndef SO3K_ARGUMENTS_H
#define SO3K_ARGUMENTS_H

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace So3k {

/// Takes the arguments of a call off torch's stack, one after the other, and puts the results
/// there.
class Arguments {
 public:
  Arguments(const c10::OperatorHandle &op, torch::jit::Stack &stack) :
      stack(stack), first(stack.size() - op.schema().arguments().size()), next(first)
  {
  }

  at::Tensor tensor() { return value().toTensor().contiguous(); }
  at::Tensor tensor(at::ScalarType type) { return value().toTensor().to(type).contiguous(); }
  std::optional<at::Tensor> optional() { return value().toOptional<at::Tensor>(); }
  std::vector<at::Tensor> tensors() { return value().toTensorVector(); }
  std::vector<int64_t> integers() { return value().toIntVector(); }
  int64_t integer() { return value().toInt(); }
  double number() { return value().toDouble(); }
  bool flag() { return value().toBool(); }

  void give(const std::vector<at::Tensor> &results)
  {
    stack.resize(first);
    for (const auto &result : results) stack.emplace_back(result);
  }

 private:
  const c10::IValue &value() { return stack[next++]; }

  torch::jit::Stack &stack;
  std::size_t first, next;
};

/// Refuses a precision that the kernels do not have.
inline void require_precision(at::ScalarType type)
{
  TORCH_CHECK(type == at::kFloat || type == at::kDouble,
              "[so3k] the kernels work in float32 and float64, not in ", type,
              ": load the model in one of these");
}

/// A derivative by an output, which is not given if nothing uses the output.
inline at::Tensor or_zeros(const std::optional<at::Tensor> &given, const at::Tensor &like)
{
  return given.has_value() && given->defined() ? given->contiguous() : at::zeros_like(like);
}

}    // namespace So3k

#endif
