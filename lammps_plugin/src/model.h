/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_MODEL_H
#define SO3K_MODEL_H

#include "pairs.h"
#include "references.h"

#include <c10/core/AutogradState.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/jit/api/module.h>

#include <optional>
#include <string>
#include <vector>

namespace So3k {

class Far;

/// What users may say of electrostatics and dispersion.
struct LongRangeOptions {
  std::string coulomb = "kspace";
  double cutoff_lr = 12.0;    // Å
  bool given = false;
};

/// The two tensors that a stage returns.
std::pair<at::Tensor, at::Tensor> two(const c10::IValue &value);

/// The exported model: its metadata and its stages, run layer by layer.
class Model {
 public:
  /// Throws std::exception if `file` (the bytes of a .pt) is not one that this plugin understands.
  Model(const std::string &file, std::optional<at::ScalarType> precision,
        const LongRangeOptions &long_range, at::Device device);

  bool knows(int64_t atomic_number) const;

  /// Features of each centre after all layers, differentiable in the pair vectors and, if there is
  /// attention beyond the cutoff, in its leaves. `shares` of the rows as the stage `embed` has
  /// them.
  at::Tensor last_features(const PairList &near, const at::Tensor &shares, int64_t n_centres,
                           const Far *far) const;

  /// A stage by its name.
  template <typename... Arguments>
  c10::IValue run(const char *stage, Arguments &&...arguments) const
  {
    return module.run_method(stage, std::forward<Arguments>(arguments)...);
  }

  /// Rows of features and of SPHCs from rows that hold both.
  std::pair<at::Tensor, at::Tensor> split(const at::Tensor &rows) const
  {
    return {rows.narrow(1, 0, features), rows.narrow(1, features, chi_width)};
  }

  /// Of the weights and constants.
  double bytes() const;
  /// Of the features and SPHCs of rows after each layer.
  double bytes_of_rows(int64_t n_rows) const;
  double element_size() const { return dtype == at::kDouble ? 8.0 : 4.0; }

  std::optional<References> references;
  std::string name, nonlocal_kind;
  std::string coulomb;
  at::ScalarType dtype;                   // of the parameters
  double cutoff, far_reach, cutoff_lr;    // Å
  std::vector<int64_t> elements;
  int64_t n_layers, features, chi_width;
  bool chi_from_neighbours;
  bool has_kernels;      // its layers are compiled
  bool needs_lattice;    // its waves belong to a periodic cell
  bool has_totals, has_zbl, has_long_range, singlets_only;
  double energy_shift;    // of an atom, not part of any energy, eV
  at::Device device;

 private:
  void describe(const LongRangeOptions &long_range);
  void prepare(std::optional<at::ScalarType> precision);

  torch::jit::Module artefact;    // errors of the frozen module look up its functions
  mutable torch::jit::Module module;
};

/// The number of threads that others gave torch, restored when a pair style is deleted.
///
/// Ranks share the cores, and most operations are small: a second thread spends its time waiting
/// for the next one, which takes the core from another rank. So a TorchScope sets one thread, and
/// lets it be, for setting the number costs as much as a step of a small system.
class OuterThreads {
 public:
  OuterThreads();
  ~OuterThreads();
  OuterThreads(const OuterThreads &) = delete;
  OuterThreads &operator=(const OuterThreads &) = delete;

 private:
  int n_threads;
};

/// Settings of torch that belong to the process, ours while this lives and restored afterwards, but
/// for the number of threads: see OuterThreads.
class TorchScope {
 public:
  explicit TorchScope(at::Device device);
  ~TorchScope();
  TorchScope(const TorchScope &) = delete;
  TorchScope &operator=(const TorchScope &) = delete;

 private:
  c10::OptionalDeviceGuard device_guard;
  c10::AutogradState autograd;
  torch::jit::FusionStrategy fusion;
};

/// The line of a torch exception that says what happened.
std::string brief(const std::exception &error);

}    // namespace So3k

#endif
