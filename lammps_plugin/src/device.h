/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_DEVICE_H
#define SO3K_DEVICE_H

#include <c10/core/Device.h>

#include <string>

namespace LAMMPS_NS {
class LAMMPS;
}    // namespace LAMMPS_NS

namespace So3k {

/// Collective: one GPU per rank of a node, round robin over the ranks of all partitions, or the CPU
/// on all ranks. `wish` is the keyword `device`: auto, cpu or cuda.
at::Device choose_device(LAMMPS_NS::LAMMPS *lmp, const std::string &wish);

}    // namespace So3k

#endif
