/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_CELLS_H
#define SO3K_CELLS_H

#include <cstdint>
#include <vector>

namespace LAMMPS_NS {
class LAMMPS;
}    // namespace LAMMPS_NS

namespace So3k {

/// Collective: refuse a box that does not fit the atoms, by the rule of
/// so3k_md/structure/cells.py.
void check_cell(LAMMPS_NS::LAMMPS *lmp, const std::vector<int64_t> &species_of_type);

}    // namespace So3k

#endif
