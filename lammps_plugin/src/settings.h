/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_SETTINGS_H
#define SO3K_SETTINGS_H

#include <c10/core/ScalarType.h>

#include "pointers.h"

#include <map>
#include <optional>
#include <string>

namespace So3k {

/// Settings of electrostatics and dispersion.
struct LongRangeOptions {
  std::string coulomb = "kspace";
  double cutoff_lr = 12.0;    // Å
  bool given = false;
};

/// Settings of groups.
struct GroupOptions {
  bool by_molecule = true;
  int64_t max_group = 10000;
};

/// Settings of charge and spin.
struct ChargeStateOptions {
  std::optional<double> charge;             // e; the sum of those of the fragments, or 0
  double spin = 0.0;                        // S of all atoms
  bool by_molecule = false;                 // a fragment is a molecule, or all atoms
  std::map<int64_t, double> of_molecule;    // e, 0 for a molecule that is not named
  bool given = false;
};

/// The arguments of pair_style so3k.
struct Settings {
  std::optional<at::ScalarType> precision;    // of the parameters; the model's own if not set
  std::string device = "auto";
  GroupOptions groups;
  ChargeStateOptions charge_state;
  LongRangeOptions long_range;
  bool cut_bonds = false;    // whether bonds to atoms outside the model are allowed

  /// Stops LAMMPS at an unknown argument.
  static Settings parse(int narg, char **arg, LAMMPS_NS::LAMMPS *lmp);
};

}    // namespace So3k

#endif
