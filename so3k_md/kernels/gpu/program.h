/* so3k-md: GPU kernels for one shape of a layer: compiled once, kept in the user's cache, launched.
 * MIT. */

#ifndef SO3K_GPU_PROGRAM_H
#define SO3K_GPU_PROGRAM_H

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

namespace So3k {

/// Source of kernels and the -D options of a shape.
struct Program {
  std::string source;    // a file of device/, such as near.cu
  std::vector<std::string> options;
};

/// Runs a kernel on torch's stream; it takes one struct. Compiles the program if this process, and
/// the cache, do not have it for this card.
void launch(const Program &program, const char *kernel, c10::Device device, int64_t blocks,
            int threads, const void *argument);

/// The options of device/degrees.h.
std::vector<std::string> degree_options(const std::vector<int64_t> &degrees);

/// One option, -DSO3K_name=value.
std::string define(const std::string &name, int64_t value);

/// Refuses a precision that the kernels for GPUs do not have.
void require_float(const at::Tensor &tensor);

/// Machine code for a card of this compute capability, from the cache or from NVRTC.
std::string machine_code(const Program &program, int capability);

}    // namespace So3k

#endif
