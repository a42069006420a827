/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_MIXED_H
#define SO3K_MIXED_H

#include "pairs.h"

namespace LAMMPS_NS {
class LAMMPS;
}    // namespace LAMMPS_NS

namespace So3k {

/// Collective: refuse bonds between an atom of the model and one that it does not see.
void check_cut_bonds(LAMMPS_NS::LAMMPS *lmp, const Centres &centres);

/// Collective: warn of terms of a force field that act among atoms of the model beside it.
void warn_of_double_terms(LAMMPS_NS::LAMMPS *lmp, const Centres &centres);

/// Warn of a heat flux that the virials of atoms do not give; `exact` if those of
/// centroid/stress/atom do.
void warn_of_heat_flux(LAMMPS_NS::LAMMPS *lmp, bool exact);

}    // namespace So3k

#endif
