/* so3k-md: tensors as the arguments of kernels have them. MIT. */

#ifndef SO3K_GPU_TENSORS_H
#define SO3K_GPU_TENSORS_H

#include <ATen/ATen.h>

#include <vector>

namespace So3k {

inline const float *floats(const at::Tensor &tensor)
{
  return tensor.const_data_ptr<float>();
}

inline const long long *integers(const at::Tensor &tensor)
{
  return reinterpret_cast<const long long *>(tensor.const_data_ptr<int64_t>());
}

/// The elements of all tensors, one after the other.
inline at::Tensor joined(const std::vector<at::Tensor> &tensors)
{
  std::vector<at::Tensor> rows;
  for (const auto &tensor : tensors) rows.push_back(tensor.flatten());
  return at::cat(rows);
}

}    // namespace So3k

#endif
