/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_MIXED_H
#define SO3K_MIXED_H

#include "pairs.h"

namespace LAMMPS_NS {
class LAMMPS;
}    // namespace LAMMPS_NS

namespace So3k {

/// Collective: refuse bonds between an atom of the model and an atom outside it.
void check_cut_bonds(LAMMPS_NS::LAMMPS *lmp, const Centres &centres);

/// Collective: warn of terms of another force field between atoms of the model.
void warn_of_double_terms(LAMMPS_NS::LAMMPS *lmp, const Centres &centres);

/// Warn of a heat flux that is wrong with the virials of stress/atom; `exact` if it is right with
/// those of centroid/stress/atom.
void warn_of_heat_flux(LAMMPS_NS::LAMMPS *lmp, bool exact);

}    // namespace So3k

#endif
