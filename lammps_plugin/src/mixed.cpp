/* so3k-md: pair_style so3k with other force fields and computes. GPL-2, see ../LICENSE. */

#include "mixed.h"

#include <array>
#include <cmath>
#include <limits>

#include "atom.h"
#include "comm.h"
#include "compute.h"
#include "error.h"
#include "force.h"
#include "modify.h"
#include "neighbor.h"

using LAMMPS_NS::Atom;
using LAMMPS_NS::bigint;
using LAMMPS_NS::LAMMPS;
using LAMMPS_NS::tagint;

namespace So3k {

namespace {

  constexpr double NO_CHARGE = 1e-8;    // e

  bool in_model(const Centres &centres, int i)
  {
    return centres.locations[i].rank >= 0;
  }

  /// Bonds from owned atoms of the model to atoms outside it: tags of both.
  std::vector<std::array<int64_t, 2>> cut_bonds(LAMMPS *lmp, const Centres &centres)
  {
    auto *atom = lmp->atom;
    auto *neighbor = lmp->neighbor;
    std::vector<std::array<int64_t, 2>> found;
    if (atom->molecular == Atom::MOLECULAR)
      for (const int i : centres.atoms)
        for (int k = 0; k < atom->nspecial[i][0]; ++k) {
          const int j = atom->map(atom->special[i][k]);
          if (j >= 0 && !in_model(centres, j)) found.push_back({atom->tag[i], atom->tag[j]});
        }
    if (atom->molecular == Atom::TEMPLATE)
      for (int k = 0; k < neighbor->nbondlist; ++k) {
        const int i = neighbor->bondlist[k][0], j = neighbor->bondlist[k][1];
        if (in_model(centres, i) && !in_model(centres, j))
          found.push_back({atom->tag[i], atom->tag[j]});
        if (in_model(centres, j) && !in_model(centres, i))
          found.push_back({atom->tag[j], atom->tag[i]});
      }
    return found;
  }

  /// How many rows of a list of bonds, angles, ... have all their atoms in the model.
  bigint inside(const Centres &centres, const char *style, int n_rows, int **rows, int n_atoms)
  {
    bigint count = 0;
    if (!style || std::string(style) == "zero" || std::string(style) == "none") return 0;
    for (int k = 0; k < n_rows; ++k) {
      bool all = true;
      for (int m = 0; m < n_atoms; ++m) all = all && in_model(centres, rows[k][m]);
      count += all;
    }
    return count;
  }

}    // namespace

void check_cut_bonds(LAMMPS *lmp, const Centres &centres)
{
  const auto bonds = cut_bonds(lmp, centres);
  auto n_cut = static_cast<int64_t>(bonds.size());
  MPI_Allreduce(MPI_IN_PLACE, &n_cut, 1, MPI_INT64_T, MPI_SUM, lmp->world);
  if (n_cut == 0) return;
  constexpr auto NONE = std::numeric_limits<int64_t>::max();
  std::array<int64_t, 2> first = {NONE, NONE};
  for (const auto &bond : bonds) first = std::min(first, bond);
  int64_t atom_of_model = first[0];
  MPI_Allreduce(MPI_IN_PLACE, &atom_of_model, 1, MPI_INT64_T, MPI_MIN, lmp->world);
  int64_t other = first[0] == atom_of_model ? first[1] : NONE;
  MPI_Allreduce(MPI_IN_PLACE, &other, 1, MPI_INT64_T, MPI_MIN, lmp->world);
  lmp->error->all(FLERR,
                  "so3k: {} bond(s) join atoms of the model to other atoms, such as atom {} of the "
                  "model to atom {}: the model treats the ends of cut bonds as radicals; select "
                  "whole molecules, or give 'cut_bonds allow' if it was trained on such ends",
                  n_cut, atom_of_model, other);
}

void warn_of_double_terms(LAMMPS *lmp, const Centres &centres)
{
  auto *atom = lmp->atom;
  auto *force = lmp->force;
  auto *lists = lmp->neighbor;
  bigint n_charged = 0;
  // with hybrid/scaled the user's factors subtract what is counted twice
  if (force->kspace && atom->q_flag && std::string(force->pair_style) != "hybrid/scaled")
    for (const int i : centres.atoms) n_charged += std::abs(atom->q[i]) > NO_CHARGE;
  bigint counts[] = {
      inside(centres, force->bond_style, lists->nbondlist, lists->bondlist, 2),
      inside(centres, force->angle_style, lists->nanglelist, lists->anglelist, 3),
      inside(centres, force->dihedral_style, lists->ndihedrallist, lists->dihedrallist, 4),
      inside(centres, force->improper_style, lists->nimproperlist, lists->improperlist, 4),
      n_charged};
  MPI_Allreduce(MPI_IN_PLACE, counts, 5, MPI_LMP_BIGINT, MPI_SUM, lmp->world);
  if (lmp->comm->me != 0) return;
  if (counts[0] + counts[1] + counts[2] + counts[3] > 0)
    lmp->error->warning(
        FLERR,
        "so3k: {} bonds, {} angles, {} dihedrals and {} impropers connect atoms of the model only, "
        "and the force field adds their energies to that of the model: give their types the style "
        "zero, or remove them with delete_bonds, unless the model was trained on the difference",
        counts[0], counts[1], counts[2], counts[3]);
  if (counts[4] > 0)
    lmp->error->warning(
        FLERR,
        "so3k: {} atoms of the model have charges, between which kspace_style {} adds a Coulomb "
        "energy to that of the model: set them to 0, use coul/cut, or subtract it with "
        "hybrid/scaled as simulations/lammps/in.ethanol_in_water does, unless the model was "
        "trained on the difference",
        counts[4], force->kspace_style);
}

void warn_of_heat_flux(LAMMPS *lmp, bool exact)
{
  if (lmp->comm->me != 0 || lmp->modify->get_compute_by_style("heat/flux").empty()) return;
  if (exact && !lmp->modify->get_compute_by_style("centroid/stress/atom").empty()) return;
  lmp->error->warning(FLERR,
                      "so3k: compute heat/flux does not give the heat flux of this model, because "
                      "{}: compute thermal conductivities from imposed fluxes (fix ehex, fix "
                      "thermal/conductivity)",
                      exact ? "it does not use centroid/stress/atom"
                            : "the part that messages and charges carry beyond a pair is missing");
}

}    // namespace So3k
