/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_MODEL_H
#define SO3K_MODEL_H

#include "pairs.h"
#include "references.h"

#include <ATen/core/jit_type.h>
#include <c10/core/AutogradState.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/jit/api/module.h>

#include "kernels.h"
#include "settings.h"

#include <mpi.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace So3k {

/// The two tensors that a stage returns.
std::pair<at::Tensor, at::Tensor> two(const c10::IValue &value);

/// A part of the exported model, or none if the model does not have it.
class Part {
 public:
  Part() = default;
  explicit Part(torch::jit::Module module) : module(std::move(module)) {}

  bool exists() const { return module.has_value(); }
  bool has(const char *stage) const { return exists() && module->find_method(stage).has_value(); }

  /// A stage by its name.
  template <typename... Arguments>
  c10::IValue run(const char *stage, Arguments &&...arguments) const
  {
    return module->run_method(stage, std::forward<Arguments>(arguments)...);
  }

  /// A part of this part.
  Part operator[](const std::string &name) const;
  /// The parts of a list.
  std::vector<Part> list() const;
  /// Throws std::runtime_error if one of these stages is missing.
  void require(const std::vector<std::string> &stages) const;
  /// The named tuple that a stage takes as its first argument.
  c10::TupleTypePtr tuple_of(const char *stage) const;

 private:
  mutable std::optional<torch::jit::Module> module;
};

/// The exported model: what it needs, and its parts, whose stages engines call.
class Model {
 public:
  /// Throws std::exception if this plugin cannot read `file`, the bytes of a .pt.
  Model(const std::string &file, std::optional<at::ScalarType> precision,
        const LongRangeOptions &long_range, at::Device device);

  bool knows(int64_t atomic_number) const;

  /// Rows of atoms as layers take them; only non-local attention needs the positions `r`.
  c10::IValue rows(const at::Tensor &x, const at::Tensor &chi, const at::Tensor &r = {}) const;

  /// Learned energies, charges that do not yet add up, and Hirshfeld ratios of atoms from their
  /// last features; the last two are undefined without electrostatics.
  std::tuple<at::Tensor, at::Tensor, at::Tensor> heads(const at::Tensor &x,
                                                       const at::Tensor &species) const;

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

  Part representation, charge_and_spin, reach, energies, physics;
  std::vector<Part> layers;

  std::optional<References> references;
  std::string name, nonlocal_kind;
  std::string coulomb;
  at::ScalarType dtype;                            // of the parameters
  double cutoff, max_group_diameter, cutoff_lr;    // Å
  std::vector<int64_t> elements;
  int64_t n_layers, features, chi_width;
  bool chi_from_neighbors;
  Choice form;           // plain layers or compiled kernels
  bool needs_lattice;    // its waves belong to a periodic cell
  bool has_charge_state, has_zbl, has_long_range, singlets_only;
  double energy_shift;    // of each atom, eV; no energy contains it
  at::Device device;

 private:
  void describe(const LongRangeOptions &long_range);
  void find_parts();
  void prepare(std::optional<at::ScalarType> precision);
  c10::IValue need(const std::string &name) const;

  torch::jit::Module artefact;
  c10::TupleTypePtr rows_type;
};

/// The threads of a rank in torch: as many as LAMMPS has (OMP_NUM_THREADS), but together with the
/// other ranks of the machine no more than it has cores, because threads that wait keep a core
/// busy.
///
/// Setting the number takes as long as a step of a small system. A TorchScope therefore sets it and
/// does not reset it; the number of before is restored when a pair style is deleted.
class Threads {
 public:
  /// Collective. `wanted`: of each rank.
  Threads(MPI_Comm world, int wanted);
  ~Threads();
  Threads(const Threads &) = delete;
  Threads &operator=(const Threads &) = delete;

  int count() const { return own; }

 private:
  int outer, own;
};

/// Settings of torch for the process, set for the lifetime of this object and then restored, except
/// the number of threads: see Threads.
class TorchScope {
 public:
  TorchScope(at::Device device, int n_threads);
  ~TorchScope();
  TorchScope(const TorchScope &) = delete;
  TorchScope &operator=(const TorchScope &) = delete;

 private:
  c10::OptionalDeviceGuard device_guard;
  c10::AutogradState autograd;
  torch::jit::FusionStrategy fusion;
};

/// The line of a torch exception that states the cause.
std::string cause_of(const std::exception &error);

}    // namespace So3k

#endif
