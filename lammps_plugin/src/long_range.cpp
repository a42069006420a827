/* so3k-md: pair_style so3k, electrostatics and dispersion. GPL-2, see ../LICENSE. */

#include "long_range.h"

#include "system.h"

#include <c10/core/GradMode.h>

#include "comm.h"
#include "domain.h"
#include "error.h"

using at::Tensor;

namespace So3k {

void LongRange::check() const
{
  const int n_periodic = domain->xperiodic + domain->yperiodic + domain->zperiodic;
  if (model.coulomb == "kspace" && n_periodic != 0 && n_periodic != 3)
    error->all(
        FLERR,
        "so3k: the box is periodic along some axes only, which coulomb kspace does not support: "
        "use 'boundary p p p', a fully open box, or pair_style so3k ... coulomb shifted+self");
}

std::string LongRange::form() const
{
  if (model.coulomb != "kspace") return model.coulomb;
  return domain->xperiodic ? "kspace (sum over the lattice)" : "kspace (all pairs, open box)";
}

LongRangeDerivatives LongRange::evaluate(const System &system, const Tensor &q, const Tensor &h,
                                         bool of_atoms) const
{
  c10::AutoGradMode no_gradient(false);
  const auto &[pairs, species, exchange] =
      std::tie(system.long_pairs.pairs, system.long_pairs.species, system.long_pairs.exchange);
  const auto rows = exchange.forward(at::stack({q, h}, 1));
  const auto found = model.physics["long_pairs"].run(
      "forward", pairs.vectors, pairs.idx_i, pairs.idx_j, species, rows.select(1, 0).contiguous(),
      rows.select(1, 1).contiguous(), model.coulomb, model.cutoff_lr);
  const auto &fields = found.toTupleRef().elements();
  const auto column = [&](int k) { return fields[k].toTensor().to(at::kDouble).unsqueeze(1); };
  // contributions of a pair to an atom of another rank are sent to that rank
  const auto own = exchange.adjoint(at::cat({fields[0].toTensor(), column(2), column(3)}, 1));
  LongRangeDerivatives derivatives{own.narrow(1, 0, 2).clone(),
                                   fields[1].toTensor(),
                                   own.select(1, 2).to(q.scalar_type()),
                                   own.select(1, 3).to(q.scalar_type()),
                                   {},
                                   {}};
  if (model.coulomb == "shifted+self") add_self(derivatives, q);
  if (model.coulomb == "kspace" && domain->xperiodic) add_lattice(derivatives, system, q, of_atoms);
  if (model.coulomb == "kspace" && !domain->xperiodic) add_open(derivatives, system, q);
  return derivatives;
}

void LongRange::add_self(LongRangeDerivatives &derivatives, const Tensor &q) const
{
  const auto [energies, by_q] = two(model.physics.run("self_derivatives", q, model.cutoff_lr));
  derivatives.energies.select(1, 0) += energies;
  derivatives.charges += by_q;
}

/// Adds up the sums of the waves over the ranks. If the virials of single atoms are not needed,
/// each atom gets an equal share, which takes no time.
void LongRange::add_lattice(LongRangeDerivatives &derivatives, const System &system,
                            const Tensor &q, bool of_atoms) const
{
  const auto r = system.positions(), cell = system.cell();
  const auto lattice_sum = model.physics["lattice_sum"];
  auto sums = lattice_sum.run("sums", q, r, cell).toTensor();
  if (comm->nprocs > 1) {
    auto total = sums.cpu().contiguous();
    MPI_Allreduce(MPI_IN_PLACE, total.data_ptr<double>(), static_cast<int>(total.numel()),
                  MPI_DOUBLE, MPI_SUM, world);
    sums = total.to(model.device);
  }
  const auto found = lattice_sum.run("read", q, r, cell, sums);
  const auto &fields = found.toTupleRef().elements();
  derivatives.energies.select(1, 0) += fields[0].toTensor();
  derivatives.charges += fields[1].toTensor();
  derivatives.positions = fields[2].toTensor().to(at::kDouble);

  auto n_atoms = static_cast<double>(system.n_centres);
  MPI_Allreduce(MPI_IN_PLACE, &n_atoms, 1, MPI_DOUBLE, MPI_SUM, world);
  derivatives.virials = of_atoms
      ? lattice_sum.run("virials", q, r, cell, sums).toTensor()
      : (fields[3].toTensor() / n_atoms).expand({system.n_centres, 3, 3});
}

/// Each rank sums over the pairs of its own atoms with all atoms.
void LongRange::add_open(LongRangeDerivatives &derivatives, const System &system,
                         const Tensor &q) const
{
  const auto mine = at::cat({q.unsqueeze(1).to(at::kDouble), system.positions()}, 1);
  int64_t first = 0;
  const auto all = gather(mine, first);
  const auto last = first + system.n_centres;
  const auto r = all.narrow(1, 1, 3).contiguous();
  const auto found =
      model.physics.run("open_derivatives", all.select(1, 0).to(q.scalar_type()), r, first, last);
  const auto &fields = found.toTupleRef().elements();
  derivatives.energies.select(1, 0) += fields[0].toTensor();
  derivatives.charges += fields[1].toTensor();
  derivatives.positions = fields[2].toTensor().to(at::kDouble);
  const auto from_middle = (r - r.mean(0, true)).slice(0, first, last);
  derivatives.virials = -from_middle.unsqueeze(2) * derivatives.positions.unsqueeze(1);
}

/// The rows of all ranks, in the order of the ranks, and the first row of this rank.
Tensor LongRange::gather(const Tensor &rows, int64_t &first) const
{
  first = 0;
  if (comm->nprocs == 1) return rows;
  const auto mine = rows.cpu().contiguous();
  const auto n_mine = static_cast<int>(mine.numel());
  std::vector<int> counts(comm->nprocs), begins(comm->nprocs + 1, 0);
  MPI_Allgather(&n_mine, 1, MPI_INT, counts.data(), 1, MPI_INT, world);
  for (int rank = 0; rank < comm->nprocs; ++rank) begins[rank + 1] = begins[rank] + counts[rank];
  const auto width = rows.size(1);
  auto all = at::empty({begins.back() / width, width}, mine.options());
  MPI_Allgatherv(mine.data_ptr<double>(), n_mine, MPI_DOUBLE, all.data_ptr<double>(), counts.data(),
                 begins.data(), MPI_DOUBLE, world);
  first = begins[comm->me] / width;
  return all.to(rows.device());
}

}    // namespace So3k
