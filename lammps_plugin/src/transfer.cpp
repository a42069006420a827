/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#include "transfer.h"

using at::Tensor;

namespace So3k {

void Transfer::add(Tensor &tensor)
{
  if (tensor.defined()) waiting.push_back(&tensor);
}

void Transfer::run()
{
  bool on_host = true;
  for (auto *tensor : waiting) {
    on_host = on_host && tensor->device().is_cpu();
    *tensor = tensor->to(at::kDouble);
  }
  if (!on_host) {
    std::vector<Tensor> numbers;
    for (const auto *tensor : waiting) numbers.push_back(tensor->reshape({-1}));
    const auto arrived = at::cat(numbers).cpu();
    int64_t first = 0;
    for (auto *tensor : waiting) {
      const auto n = tensor->numel();
      *tensor = arrived.narrow(0, first, n).view(tensor->sizes());
      first += n;
    }
  }
  waiting.clear();
}

}    // namespace So3k
