/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_CLOSE_H
#define SO3K_CLOSE_H

#include "pairs.h"

namespace LAMMPS_NS {
class LAMMPS;
}    // namespace LAMMPS_NS

namespace So3k {

/// Collective: warn of the closest pair of all ranks, by distance over the sum of covalent radii,
/// if it is closer than pairs in training data.
void warn_of_close_pair(LAMMPS_NS::LAMMPS *lmp, const PairList &near);

}    // namespace So3k

#endif
