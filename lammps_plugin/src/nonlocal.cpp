/* so3k-md: pair_style so3k, non-local attention. GPL-2, see ../LICENSE. */

#include "nonlocal.h"

#include "efa.h"
#include "sphc.h"
#include "system.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "update.h"

using at::Tensor;
using LAMMPS_NS::LAMMPS;

namespace So3k {

std::unique_ptr<Nonlocal> Nonlocal::create(LAMMPS *lmp, const Model &model,
                                           const GroupOptions &options)
{
  if (model.nonlocal_kind == "sphc") return std::make_unique<Sphc>(lmp, model, options);
  if (model.nonlocal_kind == "efa") return std::make_unique<Efa>(lmp, model, options);
  return nullptr;
}

/// Waves of the reciprocal lattice include all images, so that the group must be the whole box for
/// the energy to be extensive.
Nonlocal::Nonlocal(LAMMPS *lmp, const Model &model, const GroupOptions &options) :
    Pointers(lmp), model(model), options(options),
    groups(lmp, model.device, options.by_molecule && !model.needs_lattice)
{
}

void Nonlocal::rebuild(const System &system, bool first)
{
  connect(system);
  const auto n_centres = static_cast<double>(system.n_centres);
  MPI_Allreduce(&n_centres, &n_atoms, 1, MPI_DOUBLE, MPI_SUM, world);
  // each frame of a rerun is set up anew; to waves of the lattice all images of an atom are the
  // same
  const bool given = first || Pointers::update->setupflag;
  if (given && options.by_molecule && !model.needs_lattice)
    groups.check_whole(system, system.unwrapped());
  if (!first) return;
  if (options.by_molecule && !model.needs_lattice) warn_of_no_ids(system);
  const auto exchange = describe_exchange(system);
  if (comm->me == 0)
    LAMMPS_NS::utils::logmesg(lmp,
                              "so3k: {} attention within {} groups, the largest of {} atoms; {}\n",
                              model.nonlocal_kind, groups.n_all, groups.largest, exchange);
}

void Nonlocal::warn_of_no_ids(const System &system) const
{
  const auto n_alone = groups.unnumbered(system);
  if (n_alone && comm->me == 0)
    error->warning(
        FLERR,
        "so3k: {} atoms with bonds have the molecule id 0, which makes each a group of one "
        "atom without non-local attention: number the molecules in the data file or by 'set'",
        n_alone);
}

void Nonlocal::update(const System &system)
{
  const auto r = system.unwrapped();
  r_src = (groups.members.busy() ? groups.members.forward(r) : r).requires_grad_();
}

/// Gradients of gathered members go to their owners.
NonlocalGradient Nonlocal::gradient(const std::vector<Tensor> &gradients) const
{
  const auto &members = groups.members;
  const auto g = gradients[0].defined() ? gradients[0] : at::zeros_like(r_src);
  return {members.busy() ? members.adjoint(g) : g, gradients.size() > 1 ? gradients[1] : Tensor()};
}

Tensor Nonlocal::virials(const System &system, const NonlocalGradient &gradient) const
{
  const auto r = r_src.detach();
  const auto n_centres = gradient.positions.size(0);
  const auto summed = at::cat({r, at::ones_like(r.narrow(1, 0, 1))}, 1);
  auto sums = at::zeros({groups.n_groups, 4}, r.options()).index_add_(0, groups.group_src, summed);
  if (groups.total.busy()) sums = groups.total.forward(sums);
  const auto centres = sums.narrow(1, 0, 3) / sums.narrow(1, 3, 1);
  const auto from_centre = r.narrow(0, 0, n_centres) - centres.index_select(0, groups.group);
  auto of_atoms = -from_centre.unsqueeze(2) * gradient.positions.unsqueeze(1);
  if (!model.needs_lattice) return of_atoms;

  auto of_cell = at::zeros({3, 3}, at::kDouble);
  if (gradient.cell.defined()) of_cell -= system.cell().t().mm(gradient.cell.squeeze(0)).cpu();
  MPI_Allreduce(MPI_IN_PLACE, of_cell.data_ptr<double>(), 9, MPI_DOUBLE, MPI_SUM, world);
  return of_atoms + (of_cell / n_atoms).to(model.device);
}

/// Memory of an atom in all layers, for its rows and their gradient.
double Nonlocal::row_bytes() const
{
  return (model.n_layers + 1.0) * static_cast<double>(model.features + model.chi_width) *
      model.element_size();
}

int64_t Nonlocal::most(int64_t here) const
{
  int64_t found = here;
  MPI_Allreduce(&here, &found, 1, MPI_INT64_T, MPI_MAX, world);
  return found;
}

}    // namespace So3k
