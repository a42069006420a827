/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_NONLOCAL_H
#define SO3K_NONLOCAL_H

#include "groups.h"
#include "model.h"

#include <memory>

namespace So3k {

class System;

/// dE/dr of the centres and dE/dcell at constant pair vectors, eV/Å.
struct NonlocalGradient {
  at::Tensor positions;    // (centres, 3)
  at::Tensor cell;         // (3, 3), this rank's share; undefined if nothing depends on it
};

/// Non-local attention within groups: the work that a non-local model adds to a step.
class Nonlocal : protected LAMMPS_NS::Pointers {
 public:
  /// The kind that the model has, none for a local one.
  static std::unique_ptr<Nonlocal> create(LAMMPS_NS::LAMMPS *lmp, const Model &model,
                                          const GroupOptions &options);
  virtual ~Nonlocal() = default;

  /// Collective: after a new neighbor list; `first` of a run also checks and reports.
  void rebuild(const System &system, bool first);
  /// Read positions and cell.
  virtual void update(const System &system);

  /// The parcels to send before layer k besides the rows of neighbors.
  virtual std::vector<Parcel> outgoing(const Part &layer, const at::Tensor &x,
                                       const at::Tensor &chi) const = 0;
  /// Add the messages of layer k, given the rows that arrived.
  virtual void add(const Part &layer, at::TensorList arrived, at::Tensor &dx,
                   at::Tensor &dchi) const = 0;

  /// The leaves by which the energy is differentiated, and forces and virial from these
  /// derivatives.
  virtual std::vector<at::Tensor> leaves() const { return {r_src}; }
  NonlocalGradient gradient(const std::vector<at::Tensor> &gradients) const;

  /// Virial of each centre, (centres, 3, 3), eV: W_i = -r_i x dE/dr_i with r_i from the centre of
  /// the atom's group, and an equal share of -cell^T dE/dcell.
  at::Tensor virials(const System &system, const NonlocalGradient &gradient) const;

 protected:
  Nonlocal(LAMMPS_NS::LAMMPS *lmp, const Model &model, const GroupOptions &options);
  virtual void connect(const System &system) = 0;
  virtual std::string
  describe_exchange(const System &system) const = 0;    // collective: memory and time, for the log
  void warn_of_no_ids(const System &system) const;
  double row_bytes() const;
  int64_t most(int64_t here) const;

  const Model &model;
  const GroupOptions options;
  Groups groups;
  at::Tensor r_src;    // (centres and gathered members, 3), unwrapped, Å

 private:
  double n_atoms = 0.0;    // of the model, on all ranks
};

}    // namespace So3k

#endif
