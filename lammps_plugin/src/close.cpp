/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#include "close.h"

#include "elements.h"

#include "atom.h"
#include "comm.h"
#include "error.h"

using at::Tensor;
using LAMMPS_NS::LAMMPS;

namespace So3k {

namespace {

  constexpr double TOO_CLOSE =
      0.6;    // of the sum of covalent radii, as in so3k_md/structure/contacts.py

  struct Closest {
    double share = 1.0;    // of the sum of the covalent radii
    double distance = 0.0;
    double tags[2] = {0.0, 0.0};
  };

  Closest closest_pair(const PairList &near, const LAMMPS_NS::tagint *tag)
  {
    const auto &pairs = near.pairs;
    if (pairs.idx_i.numel() == 0) return {};
    const auto distances = pairs.vectors.detach().norm(2, 1);
    const auto radii = at::tensor(at::ArrayRef<double>(COVALENT_RADII), at::kDouble)
                           .to(distances.device())
                           .index_select(0, near.species);
    const auto sums = radii.index_select(0, pairs.idx_i) + radii.index_select(0, pairs.idx_j);
    const auto shares = distances / sums;
    const auto k = shares.argmin().item<int64_t>();
    const auto name = [&](const Tensor &atoms) {
      return tag ? static_cast<double>(tag[atoms[k].item<int64_t>()]) : 0.0;
    };
    return {shares[k].item<double>(),
            distances[k].item<double>(),
            {name(pairs.atom_i), name(pairs.atom_j)}};
  }

}    // namespace

void warn_of_close_pair(LAMMPS *lmp, const PairList &near)
{
  auto found = closest_pair(near, lmp->atom->tag);
  struct {
    double share;
    int rank;
  } least = {found.share, lmp->comm->me};
  MPI_Allreduce(MPI_IN_PLACE, &least, 1, MPI_DOUBLE_INT, MPI_MINLOC, lmp->world);
  if (least.share >= TOO_CLOSE) return;
  MPI_Bcast(&found, sizeof found, MPI_BYTE, least.rank, lmp->world);
  if (lmp->comm->me != 0) return;
  lmp->error->warning(
      FLERR,
      "so3k: atoms {:.0f} and {:.0f} are {:.2f} A apart, {:.2f} of the sum of their "
      "covalent radii, closer than atoms in training data: minimise first, or "
      "correct the positions",
      found.tags[0], found.tags[1], found.distance, found.share);
}

}    // namespace So3k
