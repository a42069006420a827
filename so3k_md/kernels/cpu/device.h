/* so3k-md: checks that tensors are on the CPU. MIT. */

#ifndef SO3K_DEVICE_H
#define SO3K_DEVICE_H

#include <ATen/ATen.h>

namespace So3k {

inline void require_cpu(const at::Tensor &tensor)
{
  TORCH_CHECK(tensor.is_cpu(), "[so3k] compiled kernels are for CPUs, and a tensor is on ",
              tensor.device().str(), ": use kernels = off");
}

}    // namespace So3k

#endif
