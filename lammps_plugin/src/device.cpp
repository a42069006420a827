/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#include "device.h"

#include "placement.h"

#include <torch/cuda.h>

#include "comm.h"
#include "error.h"
#include "lammps.h"
#include "universe.h"

using LAMMPS_NS::LAMMPS;

namespace So3k {

OnNode on_node(MPI_Comm world)
{
  MPI_Comm node;
  OnNode found;
  MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_rank(node, &found.rank);
  MPI_Comm_size(node, &found.n_ranks);
  MPI_Comm_free(&node);
  return found;
}

at::Device choose_device(LAMMPS *lmp, const std::string &wanted)
{
#ifdef SO3K_TEST_DEVICE
  if (wanted == "auto") return {at::kPrivateUse1, 0};
#endif
  auto *comm = lmp->comm;
  auto *error = lmp->error;
  const auto world = lmp->world;
  const int n_gpus = wanted == "cpu" ? 0 : torch::cuda::device_count();
  int fewest = 0, most = 0;
  MPI_Allreduce(&n_gpus, &fewest, 1, MPI_INT, MPI_MIN, world);
  MPI_Allreduce(&n_gpus, &most, 1, MPI_INT, MPI_MAX, world);
  if (wanted == "cuda" && fewest == 0)
    error->all(FLERR, "pair_style so3k device cuda: torch finds no GPU on {}, use device cpu",
               most ? "some ranks" : "this machine");
  if (fewest == 0 && most && comm->me == 0)
    error->warning(FLERR, "so3k: some ranks find no GPU, so that all ranks use CPUs");
  if (fewest == 0) return at::kCPU;
  const auto [rank, n_ranks] = on_node(world);
  if (comm->me == 0 && n_ranks > n_gpus)
    error->warning(FLERR, "so3k: {} ranks share {} GPUs on a node", n_ranks, n_gpus);
  const int by_launcher = place_by_launcher(lmp->universe->nprocs);
  int launcher_known = 0;
  MPI_Allreduce(&by_launcher, &launcher_known, 1, MPI_INT, MPI_MIN, world);
  const int place =
      launcher_known >= 0 ? by_launcher : place_by_partition(lmp->universe->iworld, rank, n_ranks);
  return {at::kCUDA, static_cast<at::DeviceIndex>(place % n_gpus)};
}

}    // namespace So3k
