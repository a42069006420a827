/* so3k-md: pair_style so3k, the results of a step for LAMMPS. GPL-2, see ../LICENSE. */

#include "pair_so3k.h"

#include <cstring>
#include <tuple>

#include "atom.h"

using namespace LAMMPS_NS;
using at::Tensor;

namespace {

constexpr int PARTS = 4, ELECTROSTATICS = 2;    // of the energy

}    // namespace

void PairSo3k::tally_energies(const Tensor &parts)
{
  if (!eflag_either) return;
  const auto scaled = parts * energy_unit;
  const auto sums = scaled.sum(0);
  if (eflag_global) {
    for (int k = 0; k < PARTS; ++k) pvector[k] = sums[k].item<double>();
    eng_coul += pvector[ELECTROSTATICS];
    eng_vdwl += sums.sum().item<double>() - pvector[ELECTROSTATICS];
  }
  if (!eflag_atom) return;
  const auto energies = scaled.sum(1);
  const auto energy = energies.accessor<double, 1>();
  for (size_t row = 0; row < system->centres.atoms.size(); ++row)
    eatom[system->centres.atoms[row]] += energy[row];
}

/// Charges and ratios for fix pair; this rank's share of the total charge, e, and of the dipole,
/// e Å, for compute pair.
void PairSo3k::tally_outputs(const Tensor &charges, const Tensor &ratios)
{
  const auto dipole = charges.unsqueeze(0).mm(system->unwrapped_on_host()).squeeze(0);
  pvector[PARTS] = charges.sum().item<double>();
  for (int k = 0; k < 3; ++k) pvector[PARTS + 1 + k] = dipole[k].item<double>();
  charge_of_atom.assign(atom->nmax, 0.0);
  ratio_of_atom.assign(atom->nmax, 0.0);
  const auto charge = charges.accessor<double, 1>(), ratio = ratios.accessor<double, 1>();
  for (size_t row = 0; row < system->centres.atoms.size(); ++row) {
    charge_of_atom[system->centres.atoms[row]] = charge[row];
    ratio_of_atom[system->centres.atoms[row]] = ratio[row];
  }
}

/// Both are fresh at every step once fix pair has asked for them, so that it needs no trigger.
void *PairSo3k::extract_peratom(const char *name, int &n_columns)
{
  n_columns = 0;
  if (!long_range) return nullptr;
  outputs_wanted = true;
  // nothing was computed yet, or `pair_modify compute no`
  for (auto *values : {&charge_of_atom, &ratio_of_atom})
    if (values->size() < static_cast<size_t>(atom->nmax)) values->resize(atom->nmax, 0.0);
  if (std::strcmp(name, "charges") == 0) return charge_of_atom.data();
  if (std::strcmp(name, "hirshfeld_ratios") == 0) return ratio_of_atom.data();
  return nullptr;
}

/// Also forces on ghosts, which LAMMPS adds to those of the owned atoms.
void PairSo3k::tally_pairs(const Part &part)
{
  const int n_atoms = atom->nlocal + atom->nghost;
  const auto *source = part.forces.data_ptr<double>();
  for (int k = 0; k < 3 * n_atoms; ++k) atom->f[0][k] += energy_unit * source[k];
  if (vflag_global) add_virial(part.virial * energy_unit);
  if (!part.of_atoms.defined()) return;
  const auto scaled = part.of_atoms * energy_unit, centroid = part.centroid * energy_unit;
  const auto half = scaled.accessor<double, 3>(), whole = centroid.accessor<double, 3>();
  for (int i = 0; i < n_atoms; ++i) add_atom_virial(i, half[i], whole[i]);
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
PairSo3k::Part PairSo3k::of_pairs(const So3k::Pairs &pairs, const Tensor &gradients,
                                  bool symmetric) const
{
  const int n_atoms = atom->nlocal + atom->nghost;
  Part part;
  std::tie(part.forces, part.virial) = So3k::tally(pairs, gradients, n_atoms);
  if (!vflag_atom && !cvflag_atom) return part;
  const auto pair_virial = -(pairs.vectors.unsqueeze(2) * gradients.to(at::kDouble).unsqueeze(1));
  const auto to_sources =
      at::zeros({n_atoms, 3, 3}, pair_virial.options()).index_add_(0, pairs.atom_j, pair_virial);
  part.of_atoms = to_sources.clone().index_add_(0, pairs.atom_i, pair_virial).mul(0.5);
  part.centroid = symmetric ? part.of_atoms : to_sources;
  return part;
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
PairSo3k::Part PairSo3k::of_centres(const Tensor &gradient, const Tensor &virials) const
{
  Part part;
  part.forces = -gradient;
  if (vflag_global) part.virial = virials.sum(0);
  if (vflag_atom || cvflag_atom) part.of_atoms = virials;
  return part;
}

void PairSo3k::tally_centres(const Part &part)
{
  const auto &atoms = system->centres.atoms;
  const auto forces = part.forces * energy_unit;
  const auto f = forces.accessor<double, 2>();
  for (size_t row = 0; row < atoms.size(); ++row)
    for (int k = 0; k < 3; ++k) atom->f[atoms[row]][k] += f[row][k];
  if (vflag_global) add_virial(part.virial * energy_unit);
  if (!part.of_atoms.defined()) return;
  const auto scaled = part.of_atoms * energy_unit;
  const auto w = scaled.accessor<double, 3>();
  for (size_t row = 0; row < atoms.size(); ++row) add_atom_virial(atoms[row], w[row], w[row]);
}
