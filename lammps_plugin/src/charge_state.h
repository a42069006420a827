/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_CHARGE_STATE_H
#define SO3K_CHARGE_STATE_H

#include "groups.h"
#include "model.h"

#include "lmptype.h"

namespace So3k {

class System;

/// Charge and spin of the whole system, and fragments between which charge does not flow.
class ChargeState : protected LAMMPS_NS::Pointers {
 public:
  ChargeState(LAMMPS_NS::LAMMPS *lmp, const Model &model, const ChargeStateOptions &options);

  /// Collective, before a run: refuse impossible charges and spins.
  void check(const std::vector<int64_t> &species_of_type) const;
  /// Collective: after a new neighbor list; `first` of a run also reports. If the atoms have
  /// changed, charges and spins are checked again.
  void rebuild(const System &system, const std::vector<int64_t> &species_of_type, bool first);

  /// Collective: the shares of each row for the stage `embed`, which change with the atoms only.
  const at::Tensor &shares(const at::Tensor &species, int64_t n_centres);
  /// Collective: charges of the centres that add up to those of the fragments, from raw ones.
  at::Tensor conserved(const at::Tensor &raw) const { return spread(raw, charges); }
  /// Collective: dE/d(raw charges) from dE/dq. The same map without a charge is its own adjoint.
  at::Tensor adjoint(const at::Tensor &derivatives) const
  {
    return spread(derivatives, at::zeros_like(charges));
  }

  double charge() const { return total; }

 private:
  void check_fragments(const std::vector<int64_t> &species_of_type) const;
  void check_electrons(const std::vector<int64_t> &species_of_type) const;
  void check_charge(LAMMPS_NS::bigint protons, LAMMPS_NS::bigint charge,
                    const std::string &whose) const;
  void check_fragment_electrons(const System &system,
                                const std::vector<int64_t> &species_of_type) const;
  at::Tensor shares_of(const at::Tensor &species, int64_t n_centres) const;
  at::Tensor spread(const at::Tensor &raw, const at::Tensor &charges) const;
  LAMMPS_NS::bigint sum(LAMMPS_NS::bigint here) const;
  LAMMPS_NS::bigint protons(const std::vector<int64_t> &species_of_type) const;

  const Model &model;
  const ChargeStateOptions options;
  double total;                                    // e
  LAMMPS_NS::bigint n_atoms = 0, n_protons = 0;    // when last checked
  Groups fragments;
  at::Tensor known_species, known_shares;    // of `shares`
  at::Tensor charges, counts;                // of the fragments with atoms on this rank, e, float64
};

}    // namespace So3k

#endif
