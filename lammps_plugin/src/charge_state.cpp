/* so3k-md: pair_style so3k, total charge and spin. GPL-2, see ../LICENSE. */

#include "charge_state.h"

#include "system.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <set>

#include "atom.h"
#include "comm.h"
#include "error.h"

using at::Tensor;
using LAMMPS_NS::bigint;

namespace So3k {

namespace {

  constexpr double EXACT = 1e-6;          // e; largest deviation of a charge from an integer
  constexpr bigint MOST_ELECTRONS = 2;    // for each proton: as many as the hydride ion has

  bool whole(double value)
  {
    return std::abs(value - std::round(value)) < EXACT;
  }

  double sum_of(const ChargeStateOptions &options)
  {
    double total = 0.0;
    for (const auto &[molecule, charge] : options.of_molecule) total += charge;
    return options.by_molecule ? total : options.charge.value_or(0.0);
  }

}    // namespace

ChargeState::ChargeState(LAMMPS_NS::LAMMPS *lmp, const Model &model,
                         const ChargeStateOptions &options) :
    Pointers(lmp), model(model), options(options), total(sum_of(options)),
    fragments(lmp, model.device, options.by_molecule)
{
}

bigint ChargeState::sum(bigint here) const
{
  bigint everywhere;
  MPI_Allreduce(&here, &everywhere, 1, MPI_LMP_BIGINT, MPI_SUM, world);
  return everywhere;
}

void ChargeState::check(const std::vector<int64_t> &species_of_type) const
{
  if (!model.has_charge_state) {
    if (options.given)
      error->all(FLERR,
                 "so3k model {} does not use the total charge: leave out charge, spin, fragments "
                 "and fragment_charge",
                 model.name);
    return;
  }
  check_fragments(species_of_type);
  check_electrons(species_of_type);
}

void ChargeState::check_fragments(const std::vector<int64_t> &species_of_type) const
{
  if (!whole(options.charge.value_or(0.0)))
    error->all(
        FLERR,
        "so3k: a charge of {:+g} e is not a whole number: give that of all ions and molecules",
        *options.charge);
  if (!options.by_molecule) {
    if (!options.of_molecule.empty())
      error->all(FLERR,
                 "so3k: fragment_charge is given without fragments: add 'fragments molecule'");
    return;
  }
  if (!atom->molecule_flag)
    error->all(
        FLERR,
        "so3k: fragments molecule needs molecule ids, which atom_style {} does not have: use "
        "atom_style full, bond or molecular",
        atom->get_style());
  if (options.charge && std::abs(*options.charge - total) > EXACT)
    error->all(
        FLERR,
        "so3k: the fragment charges add up to {:+g} e, the total charge is {:+g} e: correct one",
        total, *options.charge);
  std::set<int64_t> found;
  bigint n_alone = 0;
  for (int i = 0; i < atom->nlocal; ++i) {
    if (species_of_type[atom->type[i]] == 0) continue;
    if (options.of_molecule.count(atom->molecule[i])) found.insert(atom->molecule[i]);
    n_alone += atom->molecule[i] == 0;
  }
  if (sum(n_alone))
    error->all(
        FLERR,
        "so3k: with fragments molecule each atom needs a molecule id, and some have the id 0: "
        "number them in the data file or by 'set'");
  for (const auto &[molecule, charge] : options.of_molecule) {
    if (!whole(charge))
      error->all(
          FLERR,
          "so3k: fragment_charge {} {:+g} is not a whole number: give that of an ion or a molecule",
          molecule, charge);
    if (!sum(static_cast<bigint>(found.count(molecule))))
      error->all(FLERR, "so3k: fragment_charge names molecule {}, which no atom has: correct it",
                 molecule);
  }
}

void ChargeState::check_electrons(const std::vector<int64_t> &species_of_type) const
{
  const double unpaired = 2.0 * options.spin;
  if (unpaired < 0.0 || unpaired != std::round(unpaired))
    error->all(FLERR, "so3k: spin {:g} is impossible: give 0, 0.5, 1, ...", options.spin);
  if (model.singlets_only && unpaired > 0.0)
    error->all(FLERR, "so3k: spin {:g}, but model {} was trained on singlets only: leave it out",
               options.spin, model.name);
  const auto nuclei = protons(species_of_type), charge = static_cast<bigint>(std::llround(total));
  check_charge(nuclei, charge, "");
  const auto electrons = nuclei - charge;
  if ((electrons - static_cast<bigint>(unpaired)) % 2 != 0 || unpaired > electrons)
    error->all(FLERR, "so3k: {} electrons cannot have {:g} unpaired ones: correct charge or spin",
               electrons, unpaired);
}

/// Refuse impossible charges; `whose` ends with a colon and a space.
void ChargeState::check_charge(bigint protons, bigint charge, const std::string &whose) const
{
  const auto electrons = protons - charge;
  if (electrons < 0 || electrons > MOST_ELECTRONS * protons)
    error->all(FLERR,
               "so3k: {}a charge of {:+} e would leave {} electrons to nuclei of {:+} e: correct "
               "the charge",
               whose, charge, electrons, protons);
}

/// Collective: refuse the same of a fragment, whose unpaired electrons are known only where a model
/// has none. The first rank with atoms of a fragment reports it, the lowest molecule first.
void ChargeState::check_fragment_electrons(const System &system,
                                           const std::vector<int64_t> &species_of_type) const
{
  std::vector<double> numbers;
  for (const int i : system.centres.atoms)
    numbers.push_back(static_cast<double>(species_of_type[atom->type[i]]));
  auto sums = at::zeros({fragments.n_groups, 1}, charges.options())
                  .index_add_(0, fragments.group,
                              at::tensor(numbers, at::kDouble).to(model.device).unsqueeze(1));
  if (fragments.total.busy()) sums = fragments.total.forward(sums);
  const auto protons = sums.squeeze(1).cpu(), charge = charges.cpu();
  const auto electrons = protons - charge;
  auto wrong = (electrons < 0) | (electrons > static_cast<double>(MOST_ELECTRONS) * protons);
  if (model.singlets_only) wrong = wrong | (electrons.remainder(2) == 1);

  constexpr auto NONE = std::numeric_limits<int64_t>::max();
  std::array<int64_t, 3> found = {NONE, 0, 0};    // molecule, protons, charge
  const auto rows = wrong.nonzero().squeeze(1);
  for (int64_t n = 0; n < rows.size(0); ++n) {
    const auto k = rows[n].item<int64_t>();
    const std::array<int64_t, 3> fragment = {fragments.id(k),
                                             std::llround(protons[k].item<double>()),
                                             std::llround(charge[k].item<double>())};
    found = std::min(found, fragment);
  }
  auto lowest = found[0];
  MPI_Allreduce(MPI_IN_PLACE, &lowest, 1, MPI_INT64_T, MPI_MIN, world);
  if (lowest == NONE) return;
  int reporting_rank = found[0] == lowest ? comm->me : comm->nprocs;
  MPI_Allreduce(MPI_IN_PLACE, &reporting_rank, 1, MPI_INT, MPI_MIN, world);
  MPI_Bcast(found.data(), 3, MPI_INT64_T, reporting_rank, world);
  check_charge(found[1], found[2], fmt::format("molecule {}: ", found[0]));
  error->all(FLERR,
             "so3k: molecule {}: {} electrons cannot have 0 unpaired ones: correct its charge or "
             "its atoms",
             found[0], found[1] - found[2]);
}

/// Collective: of all atoms of the model.
bigint ChargeState::protons(const std::vector<int64_t> &species_of_type) const
{
  bigint here = 0;
  for (int i = 0; i < atom->nlocal; ++i) here += species_of_type[atom->type[i]];
  return sum(here);
}

void ChargeState::rebuild(const System &system, const std::vector<int64_t> &species_of_type,
                          bool first)
{
  bool changed = false;
  if (model.has_charge_state) {
    const auto before = std::make_pair(n_atoms, n_protons);
    n_atoms = sum(system.n_centres);
    n_protons = protons(species_of_type);
    changed = before != std::make_pair(n_atoms, n_protons);
    if (!first && changed) check(species_of_type);
  }
  if (!model.has_long_range) return;
  fragments.find(system.centres.atoms, 0);
  fragments.connect();
  std::vector<double> charge, count;
  for (int64_t k = 0; k < fragments.n_groups; ++k) {
    const auto named = options.of_molecule.find(fragments.id(k));
    const double of_named = named == options.of_molecule.end() ? 0.0 : named->second;
    charge.push_back(std::round(options.by_molecule ? of_named : total));
    count.push_back(static_cast<double>(fragments.sizes[k]));
  }
  charges = at::tensor(charge, at::kDouble).to(model.device);
  counts = at::tensor(count, at::kDouble).to(model.device);
  if (options.by_molecule && (first || changed)) check_fragment_electrons(system, species_of_type);
  if (first && comm->me == 0)
    LAMMPS_NS::utils::logmesg(lmp, "so3k: charge is conserved in each of {} fragments\n",
                              fragments.n_all);
}

const Tensor &ChargeState::shares(const Tensor &species, int64_t n_centres)
{
  int changed = !species.is_same(known_species);    // a list replaces it whenever it changes
  if (model.charge_and_spin.exists())
    MPI_Allreduce(MPI_IN_PLACE, &changed, 1, MPI_INT, MPI_MAX, world);
  if (changed) {
    known_species = species;
    known_shares = shares_of(species, n_centres);
  }
  return known_shares;
}

Tensor ChargeState::shares_of(const Tensor &species, int64_t n_centres) const
{
  const auto options_of = at::dtype(at::kDouble).device(model.device);
  if (!model.charge_and_spin.exists()) return at::zeros({0, 2}, options_of);
  const auto psi = at::tensor({std::round(total), 2.0 * options.spin}, options_of).view({1, 2});
  const auto affinities =
      model.charge_and_spin.run("affinities", species, psi.expand({species.size(0), 2})).toTensor();
  auto sums = affinities.narrow(0, 0, n_centres).sum(0, true, at::kDouble).cpu();
  MPI_Allreduce(MPI_IN_PLACE, sums.data_ptr<double>(), 2, MPI_DOUBLE, MPI_SUM, world);
  const auto frame = at::zeros_like(species);
  return model.charge_and_spin.run("shares", affinities, sums.to(model.device), psi, frame)
      .toTensor();
}

/// The difference between the charge of a fragment and the sum of its raw charges is divided
/// equally among its atoms.
Tensor ChargeState::spread(const Tensor &raw, const Tensor &charge) const
{
  auto sums = at::zeros({fragments.n_groups, 1}, charge.options())
                  .index_add_(0, fragments.group, raw.unsqueeze(1).to(at::kDouble));
  if (fragments.total.busy()) sums = fragments.total.forward(sums);
  return model.physics.run("conserved", raw, sums.squeeze(1), counts, charge, fragments.group)
      .toTensor()
      .to(raw.scalar_type());
}

}    // namespace So3k
