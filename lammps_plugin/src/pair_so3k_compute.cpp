/* so3k-md: pair_style so3k, the computation of each step. GPL-2, see ../LICENSE. */

#include "pair_so3k.h"

#include "close.h"
#include "layers.h"
#include "mixed.h"

#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <cstring>

#include "atom.h"
#include "error.h"
#include "exceptions.h"
#include "neighbor.h"
#include "update.h"

using namespace LAMMPS_NS;
using at::Tensor;

namespace {

constexpr int PARTS = 4, ELECTROSTATICS = 2;    // of the energy

}    // namespace

void PairSo3k::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  // kernels give one gradient for both directions of a pair; centroid/stress/atom needs both
  if (cvflag_atom && model->has_kernels)
    error->all(FLERR,
               "so3k: centroid/stress/atom needs the plain layers, {} runs compiled kernels: take "
               "'precision float64', or a file of 'so3k-md export --kernels off'",
               model->name);
  std::string complaint;
  try {
    evaluate();
  } catch (const LAMMPSException &) {
    throw;
  } catch (const std::exception &problem) {
    complaint = So3k::brief(problem);
  }
  // Other ranks may wait in an exchange for this one, so this rank alone stops them all.
  if (!complaint.empty())
    error->one(FLERR, "so3k failed at step {}: {}", update->ntimestep, complaint);
}

void PairSo3k::evaluate()
{
  So3k::TorchScope scope(model->device);
  update_system(!system->ready);
  const auto found = predict();
  std::vector<Tensor> leaves = {system->near.pairs.vectors};
  if (far)
    for (const auto &leaf : far->leaves()) leaves.push_back(leaf);
  const auto gradients =
      torch::autograd::grad(found.outputs, leaves, found.seeds, std::nullopt, false,
                            /*allow_unused=*/static_cast<bool>(far));

  c10::AutoGradMode no_gradient(false);
  check_finite(found, gradients[0]);
  tally_energies(found);
  tally_pairs(system->near.pairs, gradients[0], false);
  if (far) {
    const auto slopes = far->gradient({gradients.begin() + 1, gradients.end()});
    tally_atoms(slopes.positions, far->virials(*system, slopes));
  }
  if (!long_range) return;
  tally_pairs(system->distant.pairs, found.slopes.vectors, true);
  if (found.slopes.positions.defined()) tally_atoms(found.slopes.positions, found.slopes.virials);
}

/// Collective: the atoms and pairs of this step; `first` of a run.
void PairSo3k::update_system(bool first)
{
  const bool rebuild = neighbor->ago == 0 || first;
  auto &near = system->near, &distant = system->distant;
  if (first) check_neighbours();
  if (rebuild) {
    system->find_centres(this, list, species_of_type);
    if (!wishes.cut_bonds) So3k::check_cut_bonds(lmp, system->centres);
    if (first) So3k::warn_of_double_terms(lmp, system->centres);
    system->rebuild(near, list, model->cutoff, false);
    if (long_range) system->rebuild(distant, distant_list, model->cutoff_lr, true);
    totals->rebuild(*system, species_of_type, first);
  }
  system->update();
  system->update(near, model->cutoff, species_of_type);
  if (first) So3k::warn_of_close_pair(lmp, near);
  near.pairs.vectors.requires_grad_();
  if (long_range) system->update(distant, model->cutoff_lr, species_of_type);
  if (far && rebuild) far->rebuild(*system, first);
  if (far) far->update(*system);
}

/// Collective. Energies of long-range pairs have no autograd history: their derivatives by charges
/// and ratios are seeds of the gradient through the layers.
PairSo3k::Prediction PairSo3k::predict() const
{
  const auto &near = system->near;
  const auto n_centres = system->n_centres;
  const auto shares = totals->shares(near.species, n_centres);
  const auto x = So3k::last_features(*model, near, shares, n_centres, far.get());
  const auto species = near.species.narrow(0, 0, n_centres);
  const auto short_range = model->energies.run("readout", x, species).toTensor();
  const auto &[vectors, idx_i, idx_j, atom_i, atom_j] = near.pairs;
  const auto repulsion =
      model->energies.run("close_repulsion", vectors, idx_i, idx_j, near.species, x, n_centres)
          .toTensor();

  Prediction found;
  found.outputs = {(short_range + repulsion).sum()};
  found.seeds = {at::ones_like(found.outputs[0])};
  auto distant = at::zeros({n_centres, 2}, short_range.options());
  if (long_range) {
    const auto raw = model->physics.run("raw_charges", x, species).toTensor();
    const auto ratios = model->physics.run("ratios", x, species).toTensor();
    found.charges = totals->conserved(raw.detach());
    found.ratios = ratios.detach();
    found.slopes =
        long_range->evaluate(*system, found.charges, found.ratios, vflag_atom || cvflag_atom);
    found.outputs.insert(found.outputs.end(), {raw, ratios});
    found.seeds.insert(found.seeds.end(),
                       {totals->adjoint(found.slopes.charges), found.slopes.ratios});
    distant = found.slopes.energies;
  }
  found.parts = at::cat({at::stack({short_range, repulsion}, 1).detach(), distant}, 1);
  return found;
}

void PairSo3k::check_finite(const Prediction &found, const Tensor &gradient) const
{
  auto sum = found.parts.sum() + gradient.sum();
  if (long_range) sum = sum + found.slopes.vectors.sum();
  if (std::isfinite(sum.item<double>())) return;
  error->one(FLERR,
             "so3k: energy or forces are not finite at step {}: look for overlapping or lost "
             "atoms, take a "
             "smaller timestep",
             update->ntimestep);
}

void PairSo3k::tally_energies(const Prediction &found)
{
  if (long_range) tally_outputs(found);
  if (!eflag_either) return;
  const auto parts = (found.parts * energy_unit).cpu();
  const auto sums = parts.sum(0);
  if (eflag_global) {
    for (int k = 0; k < PARTS; ++k) pvector[k] = sums[k].item<double>();
    eng_coul += pvector[ELECTROSTATICS];
    eng_vdwl += sums.sum().item<double>() - pvector[ELECTROSTATICS];
  }
  if (!eflag_atom) return;
  const auto energies = parts.sum(1);
  const auto energy = energies.accessor<double, 1>();
  for (size_t row = 0; row < system->centres.atoms.size(); ++row)
    eatom[system->centres.atoms[row]] += energy[row];
}

/// Charges and ratios for fix pair; this rank's share of the total charge, e, and of the dipole,
/// e Å, for compute pair.
void PairSo3k::tally_outputs(const Prediction &found)
{
  const auto charges = found.charges.to(at::kDouble), ratios = found.ratios.to(at::kDouble).cpu();
  const auto dipole = charges.unsqueeze(0).mm(system->unwrapped()).squeeze(0).cpu();
  pvector[PARTS] = charges.sum().item<double>();
  for (int k = 0; k < 3; ++k) pvector[PARTS + 1 + k] = dipole[k].item<double>();
  charge_of_atom.assign(atom->nmax, 0.0);
  ratio_of_atom.assign(atom->nmax, 0.0);
  const auto on_host = charges.cpu();
  const auto charge = on_host.accessor<double, 1>(), ratio = ratios.accessor<double, 1>();
  for (size_t row = 0; row < system->centres.atoms.size(); ++row) {
    charge_of_atom[system->centres.atoms[row]] = charge[row];
    ratio_of_atom[system->centres.atoms[row]] = ratio[row];
  }
}

/// Both are fresh at every step, so that fix pair needs no trigger.
void *PairSo3k::extract_peratom(const char *name, int &n_columns)
{
  n_columns = 0;
  if (!long_range) return nullptr;
  // nothing was computed yet, or `pair_modify compute no`
  for (auto *values : {&charge_of_atom, &ratio_of_atom})
    if (values->size() < static_cast<size_t>(atom->nmax)) values->resize(atom->nmax, 0.0);
  if (std::strcmp(name, "charges") == 0) return charge_of_atom.data();
  if (std::strcmp(name, "hirshfeld_ratios") == 0) return ratio_of_atom.data();
  return nullptr;
}

/// Also forces on ghosts, which LAMMPS adds to those of the owned atoms.
void PairSo3k::tally_pairs(const So3k::Pairs &pairs, const Tensor &slopes, bool symmetric)
{
  const int n_atoms = atom->nlocal + atom->nghost;
  const auto [forces, total] = So3k::tally(pairs, slopes, n_atoms);
  const auto *source = forces.data_ptr<double>();
  for (int k = 0; k < 3 * n_atoms; ++k) atom->f[0][k] += energy_unit * source[k];
  if (vflag_global) add_virial(energy_unit * total);
  if (vflag_atom || cvflag_atom)
    tally_atom_virial(pairs, slopes.to(at::kDouble) * energy_unit, symmetric);
}

void PairSo3k::add_virial(const Tensor &total)
{
  const auto w = total.accessor<double, 2>();
  for (int k = 0; k < 3; ++k) virial[k] += w[k][k];
  virial[3] += 0.5 * (w[0][1] + w[1][0]);
  virial[4] += 0.5 * (w[0][2] + w[2][0]);
  virial[5] += 0.5 * (w[1][2] + w[2][1]);
}

/// stress/atom: half of a pair to each atom, symmetrised. centroid/stress/atom: a pair of the
/// layers to its source j, which is the heat-flux form (doi:10.1103/PhysRevB.92.094301), exact for
/// one layer; a symmetric pair, listed once, by halves.
void PairSo3k::tally_atom_virial(const So3k::Pairs &pairs, const Tensor &gradient, bool symmetric)
{
  const int n_atoms = atom->nlocal + atom->nghost;
  const auto pair_virial = -(pairs.vectors.unsqueeze(2) * gradient.unsqueeze(1));
  const auto to_sources =
      at::zeros({n_atoms, 3, 3}, gradient.options()).index_add_(0, pairs.atom_j, pair_virial);
  const auto of_both = to_sources.clone().index_add_(0, pairs.atom_i, pair_virial).mul(0.5).cpu();
  const auto of_sources = symmetric ? of_both : to_sources.cpu();
  const auto half = of_both.accessor<double, 3>(), whole = of_sources.accessor<double, 3>();
  for (int i = 0; i < n_atoms; ++i) add_atom_virial(i, half[i], whole[i]);
}

/// The contribution of an atom to stress/atom, symmetrised, and to centroid/stress/atom.
void PairSo3k::add_atom_virial(int i, const AtomVirial &share, const AtomVirial &centroid)
{
  constexpr int ROW[9] = {0, 1, 2, 0, 0, 1, 1, 2, 2}, COLUMN[9] = {0, 1, 2, 1, 2, 2, 0, 0, 1};
  for (int k = 0; vflag_atom && k < 6; ++k)
    vatom[i][k] += 0.5 * (share[ROW[k]][COLUMN[k]] + share[COLUMN[k]][ROW[k]]);
  for (int k = 0; cvflag_atom && k < 9; ++k) cvatom[i][k] += centroid[ROW[k]][COLUMN[k]];
}

/// F_i -= dE/dr_i, and the virials of single atoms, of the terms without pairs here: non-local
/// attention, and electrostatics without a cutoff.
void PairSo3k::tally_atoms(const Tensor &slopes_by_positions, const Tensor &virials_of_atoms)
{
  const auto &atoms = system->centres.atoms;
  const auto slopes = (slopes_by_positions * energy_unit).cpu();
  const auto slope = slopes.accessor<double, 2>();
  for (size_t row = 0; row < atoms.size(); ++row)
    for (int k = 0; k < 3; ++k) atom->f[atoms[row]][k] -= slope[row][k];
  if (!vflag_either && !cvflag_atom) return;
  const auto virials = (virials_of_atoms * energy_unit).cpu();
  if (vflag_global) add_virial(virials.sum(0));
  const auto w = virials.accessor<double, 3>();
  for (size_t row = 0; row < atoms.size(); ++row) add_atom_virial(atoms[row], w[row], w[row]);
}

int PairSo3k::pack_forward_comm(int n, int *atoms, double *buffer, int /*pbc_flag*/, int * /*pbc*/)
{
  return system->pack_homes(n, atoms, buffer);
}

void PairSo3k::unpack_forward_comm(int n, int first, double *buffer)
{
  system->unpack_homes(n, first, buffer);
}
