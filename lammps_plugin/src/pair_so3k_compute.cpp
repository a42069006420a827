/* so3k-md: pair_style so3k, what happens at every step. GPL-2, see ../LICENSE. */

#include "pair_so3k.h"

#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "atom.h"
#include "error.h"
#include "neighbor.h"
#include "update.h"

using namespace LAMMPS_NS;
using at::Tensor;

void PairSo3k::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  std::string complaint;
  try {
    evaluate();
  } catch (const LAMMPSException &) {
    throw;
  } catch (const std::exception &problem) {
    complaint = So3k::brief(problem);
  }
  // The other ranks may wait in an exchange for this one, so it stops them all by itself.
  if (!complaint.empty())
    error->one(FLERR, "so3k failed at step {}: {}", update->ntimestep, complaint);
}

void PairSo3k::evaluate()
{
  So3k::TorchScope scope(model->device);
  const bool first = !system->ready, rebuild = neighbor->ago == 0 || first;
  if (rebuild) system->rebuild(this, list, model->cutoff, species_of_type);
  system->update(model->cutoff, species_of_type);
  if (far && rebuild) far->rebuild(*system, first);
  if (far) far->update(*system);

  std::vector<Tensor> leaves = {system->pairs.vectors};
  if (far)
    for (const auto &leaf : far->leaves()) leaves.push_back(leaf);
  const auto energies = model->energies(system->pairs, system->species, system->n_centres,
                                        system->exchange, far.get());
  const auto gradients = torch::autograd::grad({energies.sum()}, leaves, {}, std::nullopt, false,
                                               /*allow_unused=*/static_cast<bool>(far));
  c10::AutoGradMode no_gradient(false);
  check_finite(energies, gradients[0]);
  tally(energies, gradients[0] * energy_unit);
  if (far) tally_far(far->gradient({gradients.begin() + 1, gradients.end()}));
}

void PairSo3k::check_finite(const Tensor &energies, const Tensor &gradient) const
{
  if (std::isfinite((energies.sum() + gradient.sum()).item<double>())) return;
  error->one(FLERR,
             "so3k: energy or forces are not finite at step {}: look for overlapping or lost "
             "atoms, take a "
             "smaller timestep",
             update->ntimestep);
}

/// F_i += g, F_j -= g: on ghosts too, whose share LAMMPS brings home.
void PairSo3k::tally(const Tensor &energies, const Tensor &gradient)
{
  const int n_atoms = atom->nlocal + atom->nghost;
  const auto forces = at::zeros({n_atoms, 3}, gradient.options())
                          .index_add_(0, system->atom_i, gradient)
                          .index_add_(0, system->atom_j, gradient, -1)
                          .cpu();
  const auto *source = forces.data_ptr<double>();
  if (n_atoms) {
    auto *target = atom->f[0];
    for (int k = 0; k < 3 * n_atoms; ++k) target[k] += source[k];
  }
  if (eflag_either) tally_energies(energies * energy_unit);
  if (vflag_global) tally_virial(gradient);
  if (vflag_atom || cvflag_atom) tally_atom_virial(gradient);
}

void PairSo3k::tally_energies(const Tensor &energies)
{
  if (eflag_global) eng_vdwl += energies.sum().item<double>();
  if (!eflag_atom) return;
  const auto values = energies.cpu();
  const auto energy = values.accessor<double, 1>();
  for (size_t row = 0; row < system->centres.size(); ++row)
    eatom[system->centres[row]] += energy[row];
}

/// W = -sum r x g over the pairs of owned centres.
void PairSo3k::tally_virial(const Tensor &gradient)
{
  add_virial(-system->pairs.vectors.t().mm(gradient).cpu());
}

void PairSo3k::add_virial(const Tensor &total)
{
  const auto w = total.accessor<double, 2>();
  for (int k = 0; k < 3; ++k) virial[k] += w[k][k];
  virial[3] += 0.5 * (w[0][1] + w[1][0]);
  virial[4] += 0.5 * (w[0][2] + w[2][0]);
  virial[5] += 0.5 * (w[1][2] + w[2][1]);
}

/// stress/atom: half of a pair to each atom, symmetrised. centroid/stress/atom: a pair to its
/// source j, which is the heat-flux form (doi:10.1103/PhysRevB.92.094301), exact for one layer.
void PairSo3k::tally_atom_virial(const Tensor &gradient)
{
  const int n_atoms = atom->nlocal + atom->nghost;
  const auto pair_virial = -(system->pairs.vectors.unsqueeze(2) * gradient.unsqueeze(1));
  const auto to_sources =
      at::zeros({n_atoms, 3, 3}, gradient.options()).index_add_(0, system->atom_j, pair_virial);
  const auto of_sources = to_sources.cpu();
  const auto of_both = to_sources.clone().index_add_(0, system->atom_i, pair_virial).mul(0.5).cpu();
  const auto half = of_both.accessor<double, 3>(), whole = of_sources.accessor<double, 3>();
  for (int i = 0; i < n_atoms; ++i) add_atom_virial(i, half[i], whole[i]);
}

/// The part of an atom in stress/atom, symmetrised, and in centroid/stress/atom.
void PairSo3k::add_atom_virial(int i, const AtomVirial &share, const AtomVirial &centroid)
{
  constexpr int ROW[9] = {0, 1, 2, 0, 0, 1, 1, 2, 2}, COLUMN[9] = {0, 1, 2, 1, 2, 2, 0, 0, 1};
  for (int k = 0; vflag_atom && k < 6; ++k)
    vatom[i][k] += 0.5 * (share[ROW[k]][COLUMN[k]] + share[COLUMN[k]][ROW[k]]);
  for (int k = 0; cvflag_atom && k < 9; ++k) cvatom[i][k] += centroid[ROW[k]][COLUMN[k]];
}

/// F_i -= dE/dr_i, and the virials that attention beyond the cutoff gives to single atoms: its
/// pairs are not known here.
void PairSo3k::tally_far(const So3k::FarGradient &gradient)
{
  const auto slopes = (gradient.positions * energy_unit).cpu();
  const auto slope = slopes.accessor<double, 2>();
  for (size_t row = 0; row < system->centres.size(); ++row)
    for (int k = 0; k < 3; ++k) atom->f[system->centres[row]][k] -= slope[row][k];
  if (!vflag_either && !cvflag_atom) return;
  const auto virials = (far->virials(gradient) * energy_unit).cpu();
  if (vflag_global) add_virial(virials.sum(0));
  const auto w = virials.accessor<double, 3>();
  for (size_t row = 0; row < system->centres.size(); ++row)
    add_atom_virial(system->centres[row], w[row], w[row]);
}

int PairSo3k::pack_forward_comm(int n, int *atoms, double *buffer, int /*pbc_flag*/, int * /*pbc*/)
{
  return system->pack_homes(n, atoms, buffer);
}

void PairSo3k::unpack_forward_comm(int n, int first, double *buffer)
{
  system->unpack_homes(n, first, buffer);
}
