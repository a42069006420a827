/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_DEVICE_H
#define SO3K_DEVICE_H

#include <c10/core/Device.h>

#include <mpi.h>

#include <string>

namespace LAMMPS_NS {
class LAMMPS;
}    // namespace LAMMPS_NS

namespace So3k {

/// The place of this process among the ranks of its machine, and their number.
struct OnNode {
  int rank, n_ranks;
};

/// Collective.
OnNode on_node(MPI_Comm world);

/// Collective: one GPU per rank of a node, round robin over the ranks of all partitions, or the CPU
/// on all ranks. `wish` is the keyword `device`: auto, cpu or cuda.
at::Device choose_device(LAMMPS_NS::LAMMPS *lmp, const std::string &wish);

}    // namespace So3k

#endif
