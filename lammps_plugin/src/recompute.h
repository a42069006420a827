/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_RECOMPUTE_H
#define SO3K_RECOMPUTE_H

#include <ATen/ATen.h>
#include <functional>
#include <vector>

namespace So3k {

using Formula = std::function<at::Tensor(const std::vector<at::Tensor> &)>;

/// f(inputs). Only the inputs are kept, and the gradient computes f again, so that a sum over many
/// tiles needs the memory of one tile.
at::Tensor recomputed(const Formula &f, const std::vector<at::Tensor> &inputs);

}    // namespace So3k

#endif
