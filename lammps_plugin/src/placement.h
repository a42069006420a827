/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_PLACEMENT_H
#define SO3K_PLACEMENT_H

#include <cstdlib>
#include <string>

namespace So3k {

/// Environment variables in which a launcher of MPI states the place of a process on its node, and
/// the number of processes.
struct Launcher {
  const char *place, *n_ranks;
};
constexpr Launcher LAUNCHERS[] = {{"OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE"},
                                  {"MPI_LOCALRANKID", "PMI_SIZE"},
                                  {"PMI_LOCAL_RANK", "PMI_SIZE"},
                                  {"MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_SIZE"},
                                  {"SLURM_LOCALID", "SLURM_STEP_NUM_TASKS"}};

/// The place of this process among those of its node, -1 if no launcher states it. A launcher of
/// fewer ranks than LAMMPS has did not start LAMMPS.
inline int place_by_launcher(int n_ranks)
{
  for (const auto &launcher : LAUNCHERS) {
    const auto *place = std::getenv(launcher.place), *started = std::getenv(launcher.n_ranks);
    if (place && started && std::atoi(started) >= n_ranks) return std::atoi(place);
  }
  return -1;
}

/// The same from data of one partition of LAMMPS: partitions do not wait for each other, so that
/// messages between them are not allowed.
inline int place_by_partition(int partition, int rank_on_node, int n_ranks_on_node)
{
  return partition * n_ranks_on_node + rank_on_node;
}

}    // namespace So3k

#endif
