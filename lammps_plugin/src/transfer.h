/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_TRANSFER_H
#define SO3K_TRANSFER_H

#include <ATen/ATen.h>

#include <vector>

namespace So3k {

/// Results of a step on their way to the host: one copy for all, because each waits for the device.
class Transfer {
 public:
  /// A tensor that `run` replaces by its copy on the host, float64; it must live until then.
  void add(at::Tensor &tensor);
  void run();

 private:
  std::vector<at::Tensor *> waiting;
};

}    // namespace So3k

#endif
