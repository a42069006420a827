/* so3k-md: operators with an adjoint, by device. MIT. */

#ifndef SO3K_DIFFERENTIABLE_H
#define SO3K_DIFFERENTIABLE_H

#include <ATen/core/boxing/KernelFunction.h>
#include <torch/library.h>

#include <string>

namespace So3k {

/// Defines NAME(ARGUMENTS) -> RESULTS and the two operators that it consists of, which each device
/// implements:
///
///   NAME_forward(ARGUMENTS) -> RESULTS, SAVED
///   NAME_backward(derivative by each result or None, SAVED, ARGUMENTS) -> derivatives by the first
///   arguments
///
/// NAME itself calls these on any device, and is the one autograd node of all of them.
///
/// Args:
///   schema: of NAME; all results are tensors.
///   n_saved: tensors that the forward pass makes for the backward pass.
///   n_gradients: leading arguments, all of them tensors, that have a derivative.
void define_differentiable(torch::Library &library, const std::string &schema, int n_saved,
                           int n_gradients);

/// Implements an operator for one kind of device.
template <c10::BoxedKernel::BoxedKernelFunction *function>
void implement(torch::Library &library, const std::string &name, c10::DispatchKey key)
{
  library.impl(name.c_str(),
               torch::dispatch(key, torch::CppFunction::makeFromBoxedFunction<function>()));
}

/// Implements both passes of an operator with an adjoint for one kind of device.
template <c10::BoxedKernel::BoxedKernelFunction *forward,
          c10::BoxedKernel::BoxedKernelFunction *backward>
void implement_passes(torch::Library &library, const std::string &name, c10::DispatchKey key)
{
  implement<forward>(library, name + "_forward", key);
  implement<backward>(library, name + "_backward", key);
}

/// Refuses devices without kernels of their own.
void refuse_others(torch::Library &library, const std::string &name);

/// The same for both passes of an operator with an adjoint.
void refuse_passes(torch::Library &library, const std::string &name);

}    // namespace So3k

#endif
