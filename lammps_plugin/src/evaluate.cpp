/* so3k-md: pair_style so3k, the evaluation of a step. GPL-2, see ../LICENSE. */

#include "pair_so3k.h"

#include "close.h"
#include "layers.h"
#include "mixed.h"
#include "transfer.h"

#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <tuple>

#include "error.h"
#include "exceptions.h"
#include "neighbor.h"
#include "update.h"

using namespace LAMMPS_NS;
using at::Tensor;

void PairSo3k::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  // kernels give one gradient for both directions of a pair; centroid/stress/atom needs both
  if (cvflag_atom && model->form.compiled)
    error->all(FLERR,
               "so3k: centroid/stress/atom needs the plain layers, {} runs compiled kernels: use "
               "'precision float64', or a file of 'so3k-md export --kernels off'",
               model->name);
  std::string message;
  try {
    evaluate();
  } catch (const LAMMPSException &) {
    throw;
  } catch (const std::exception &problem) {
    message = So3k::cause_of(problem);
  }
  // Other ranks may wait in an exchange for this one, so this rank alone stops them all.
  if (!message.empty()) error->one(FLERR, "so3k failed at step {}: {}", update->ntimestep, message);
}

void PairSo3k::evaluate()
{
  So3k::TorchScope scope(model->device, threads.count());
  update_system(!system->ready);
  const auto found = predict();
  std::vector<Tensor> leaves = {system->near.pairs.vectors};
  if (nonlocal)
    for (const auto &leaf : nonlocal->leaves()) leaves.push_back(leaf);
  const auto gradients =
      torch::autograd::grad(found.outputs, leaves, found.seeds, std::nullopt, false,
                            /*allow_unused=*/static_cast<bool>(nonlocal));

  c10::AutoGradMode no_gradient(false);
  auto results = collect(found, gradients);
  hand_over(results);
  tally_energies(results.parts);
  if (results.charges.defined()) tally_outputs(results.charges, results.ratios);
  for (const auto &part : results.of_pairs) tally_pairs(part);
  for (const auto &part : results.of_centres) tally_centres(part);
}

/// Collective: all that LAMMPS asks for in this step.
PairSo3k::Results PairSo3k::collect(const Prediction &found, const std::vector<Tensor> &gradients)
{
  Results results;
  results.sum = found.parts.sum() + gradients[0].sum();
  if (long_range) results.sum = results.sum + found.derivatives.vectors.sum();
  if (eflag_either) results.parts = eflag_atom ? found.parts : found.parts.sum(0, true);
  if (long_range && (outputs_wanted || eflag_global))
    std::tie(results.charges, results.ratios) = std::tie(found.charges, found.ratios);
  results.of_pairs.push_back(of_pairs(system->near.pairs, gradients[0], false));
  if (nonlocal) {
    const auto rows = nonlocal->gradient({gradients.begin() + 1, gradients.end()});
    const bool asked = vflag_either || cvflag_atom;
    const auto virials = asked ? nonlocal->virials(*system, rows) : Tensor();
    results.of_centres.push_back(of_centres(rows.positions, virials));
  }
  if (!long_range) return results;
  const auto &[energies, vectors, by_q, by_h, positions, virials] = found.derivatives;
  results.of_pairs.push_back(of_pairs(system->long_pairs.pairs, vectors, true));
  if (positions.defined()) results.of_centres.push_back(of_centres(positions, virials));
  return results;
}

/// Collective: the atoms and pairs of this step; `first` of a run.
void PairSo3k::update_system(bool first)
{
  const bool rebuild = neighbor->ago == 0 || first;
  auto &near = system->near, &long_pairs = system->long_pairs;
  if (first) check_neighbors();
  if (rebuild) {
    system->find_centres(this, list, species_of_type);
    if (!options.cut_bonds) So3k::check_cut_bonds(lmp, system->centres);
    if (first) So3k::warn_of_double_terms(lmp, system->centres);
    system->rebuild(near, list, model->cutoff, false);
    if (long_range) system->rebuild(long_pairs, long_list, model->cutoff_lr, true);
    charge_state->rebuild(*system, species_of_type, first);
  }
  system->update();
  system->update(near, model->cutoff, species_of_type);
  if (first) So3k::warn_of_close_pair(lmp, near);
  near.pairs.vectors.requires_grad_();
  if (long_range) system->update(long_pairs, model->cutoff_lr, species_of_type);
  if (nonlocal && rebuild) nonlocal->rebuild(*system, first);
  if (nonlocal) nonlocal->update(*system);
}

/// Collective. Energies of long-range pairs have no autograd history: their derivatives by charges
/// and ratios are seeds of the gradient through the layers.
PairSo3k::Prediction PairSo3k::predict()
{
  const auto &near = system->near;
  const auto n_centres = system->n_centres;
  const auto &shares = charge_state->shares(near.species, n_centres);
  const auto x = So3k::last_features(*model, near, shares, n_centres, nonlocal.get());
  const auto species = near.species.narrow(0, 0, n_centres);
  const auto [short_range, raw, ratios] = model->heads(x, species);
  const auto &[vectors, idx_i, idx_j, atom_i, atom_j] = near.pairs;
  const auto repulsion =
      model->energies.run("close_repulsion", vectors, idx_i, idx_j, near.species, x, n_centres)
          .toTensor();

  Prediction found;
  found.outputs = {(short_range + repulsion).sum()};
  found.seeds = {at::ones_like(found.outputs[0])};
  auto long_energies = at::zeros({n_centres, 2}, short_range.options());
  if (long_range) {
    found.charges = charge_state->conserved(raw.detach());
    found.ratios = ratios.detach();
    found.derivatives =
        long_range->evaluate(*system, found.charges, found.ratios, vflag_atom || cvflag_atom);
    found.outputs.insert(found.outputs.end(), {raw, ratios});
    found.seeds.insert(
        found.seeds.end(),
        {charge_state->adjoint(found.derivatives.charges), found.derivatives.ratios});
    long_energies = found.derivatives.energies;
  }
  found.parts = at::cat({at::stack({short_range, repulsion}, 1).detach(), long_energies}, 1);
  return found;
}

/// One copy to the host for all results, and refusal of those that are not finite.
void PairSo3k::hand_over(Results &results) const
{
  So3k::Transfer transfer;
  for (auto *tensor : {&results.sum, &results.parts, &results.charges, &results.ratios})
    transfer.add(*tensor);
  for (auto *parts : {&results.of_pairs, &results.of_centres})
    for (auto &part : *parts)
      for (auto *tensor : {&part.forces, &part.virial, &part.of_atoms, &part.centroid})
        transfer.add(*tensor);
  transfer.run();
  if (std::isfinite(results.sum.item<double>())) return;
  error->one(FLERR,
             "so3k: energy or forces are not finite at step {}: look for overlapping or lost "
             "atoms, or use a smaller timestep",
             update->ntimestep);
}

int PairSo3k::pack_forward_comm(int n, int *atoms, double *buffer, int /*pbc_flag*/, int * /*pbc*/)
{
  return system->pack_locations(n, atoms, buffer);
}

void PairSo3k::unpack_forward_comm(int n, int first, double *buffer)
{
  system->unpack_locations(n, first, buffer);
}
