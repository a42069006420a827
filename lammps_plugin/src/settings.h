/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_SETTINGS_H
#define SO3K_SETTINGS_H

#include "far.h"
#include "totals.h"

namespace So3k {

/// The arguments of pair_style so3k.
struct Settings {
  std::optional<at::ScalarType> precision;    // of the parameters; the model's own if not set
  std::string device = "auto";
  GroupOptions groups;
  TotalOptions totals;
  LongRangeOptions long_range;
  bool cut_bonds = false;    // whether bonds to atoms outside the model are allowed

  /// Stops LAMMPS at an unknown argument.
  static Settings parse(int narg, char **arg, LAMMPS_NS::LAMMPS *lmp);
};

}    // namespace So3k

#endif
