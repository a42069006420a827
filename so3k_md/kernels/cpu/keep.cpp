/* so3k-md: keeps the tensors that kernels compute from the weights of a layer, once for all copies
 * of a model in a process. MIT. */

#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "operators.h"

using at::Tensor;

namespace So3k {
namespace {

  constexpr int64_t UNUSED_BYTES = 64 << 20;    // bytes that are kept although no model uses them

  using Key = std::tuple<std::string, at::ScalarType, c10::DeviceType, c10::DeviceIndex>;
  using Weak = c10::weak_intrusive_ptr<at::TensorImpl>;

  /// Tensors made of weights, and the weights, which models may have in several places.
  struct Entry {
    std::vector<Tensor> made;
    // a weak pointer keeps the address of its object from being used again
    std::unordered_map<const at::TensorImpl *, Weak> owners;
    int64_t last_use = 0;

    int64_t bytes() const
    {
      int64_t sum = 0;
      for (const auto &tensor : made) sum += static_cast<int64_t>(tensor.nbytes());
      return sum;
    }

    bool in_use() const
    {
      return std::any_of(owners.begin(), owners.end(),
                         [](const auto &owner) { return !owner.second.expired(); });
    }

    void add(const Tensor &weight)
    {
      auto *address = weight.unsafeGetTensorImpl();
      if (owners.count(address)) return;
      for (auto owner = owners.begin(); owner != owners.end();)
        owner = owner->second.expired() ? owners.erase(owner) : std::next(owner);
      owners.emplace(address, Weak(weight.getIntrusivePtr()));
    }
  };

  Key key_of(std::string name, const Tensor &weight)
  {
    return {std::move(name), weight.scalar_type(), weight.device().type(), weight.device().index()};
  }

  std::mutex mutex;
  // never destroyed: at the end of a process torch's own data may already be destroyed
  std::map<Key, Entry> &entries = *new std::map<Key, Entry>;
  int64_t uses = 0;

  /// Deletes tensors that no model uses, least recently used first, until UNUSED_BYTES bytes are
  /// left.
  void delete_unused()
  {
    std::vector<std::map<Key, Entry>::iterator> unused;
    int64_t bytes = 0;
    for (auto entry = entries.begin(); entry != entries.end(); ++entry) {
      if (entry->second.in_use()) continue;
      unused.push_back(entry);
      bytes += entry->second.bytes();
    }
    std::sort(unused.begin(), unused.end(),
              [](auto a, auto b) { return a->second.last_use < b->second.last_use; });
    for (const auto &entry : unused) {
      if (bytes <= UNUSED_BYTES) return;
      bytes -= entry->second.bytes();
      entries.erase(entry);
    }
  }

  /// The tensors kept under this key, or nothing. `x`, which is no constant, prevents TorchScript
  /// from replacing the call by its first result.
  std::vector<Tensor> recall(const Tensor &, const Tensor &weight, std::string key)
  {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = entries.find(key_of(std::move(key), weight));
    if (found == entries.end()) return {};
    found->second.add(weight);
    found->second.last_use = ++uses;
    return found->second.made;
  }

  /// Keeps tensors for all calls with the same key, as long as one of the given weights exists.
  std::vector<Tensor> keep(const Tensor &weight, std::string key, std::vector<Tensor> made)
  {
    const std::lock_guard<std::mutex> lock(mutex);
    auto &entry = entries[key_of(std::move(key), weight)];
    entry.made = made;
    entry.add(weight);
    entry.last_use = ++uses;
    delete_unused();
    return made;
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  library.def(So3k::operators::RECALL, So3k::recall);
  library.def(So3k::operators::KEEP, So3k::keep);
}
