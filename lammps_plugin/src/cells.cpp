/* so3k-md: pair_style so3k, whether a box can be that of its atoms. GPL-2, see ../LICENSE. */

#include "cells.h"

#include "elements.h"

#include <algorithm>
#include <cmath>

#include "atom.h"
#include "domain.h"
#include "error.h"
#include "lammps.h"

using LAMMPS_NS::bigint;
using LAMMPS_NS::LAMMPS;

namespace So3k {

namespace {

  // as in so3k_md/structure/cells.py
  constexpr double SMALLEST_VOLUME = 1.0;     // Å³ per atom
  constexpr double HIGHEST_DENSITY = 30.0;    // g/cm³
  constexpr double AMU_PER_CUBIC_ANGSTROM = 1.66053907;
  constexpr double DUMMY = 1.0, EXACT = 1e-3;    // Å, the cube of PDB files without a cell

  /// Sums and extremes over the atoms of the model.
  struct AtomSums {
    double mass = 0.0;      // g/mol
    double widest = 0.0;    // covalent radius, Å
  };

  AtomSums sum_atoms(LAMMPS *lmp, const std::vector<int64_t> &species_of_type)
  {
    auto *atom = lmp->atom;
    AtomSums found;
    for (int i = 0; i < atom->nlocal; ++i) {
      const auto z = species_of_type[atom->type[i]];
      found.mass += ATOMIC_MASSES.at(z);
      found.widest = std::max(found.widest, COVALENT_RADII.at(z));
    }
    MPI_Allreduce(MPI_IN_PLACE, &found.mass, 1, MPI_DOUBLE, MPI_SUM, lmp->world);
    MPI_Allreduce(MPI_IN_PLACE, &found.widest, 1, MPI_DOUBLE, MPI_MAX, lmp->world);
    return found;
  }

  /// The fault of a box as a phrase to follow "the box"; "" if there is none.
  std::string fault(LAMMPS *lmp, const AtomSums &sums)
  {
    const auto *domain = lmp->domain;
    const bool periodic[] = {domain->xperiodic != 0, domain->yperiodic != 0,
                             domain->zperiodic != 0};
    const auto *h = domain->h;    // upper triangular: xx yy zz yz xz xy
    const double lengths[] = {h[0], std::hypot(h[5], h[1]),
                              std::hypot(h[4], std::hypot(h[3], h[2]))};
    const bool in_all = periodic[0] && periodic[1] && periodic[2];
    const auto near_dummy = [](double length) { return std::abs(length - DUMMY) < EXACT; };
    if (in_all && std::all_of(lengths, lengths + 3, near_dummy))
      return "is the cube of 1 A that PDB files contain if there is no cell";
    for (int k = 0; k < 3; ++k)
      if (periodic[k] && lengths[k] < sums.widest)
        return fmt::format(
            "repeats after {:.2f} A, so that an atom would overlap with its own image", lengths[k]);
    if (!in_all) return "";
    const auto volume = h[0] * h[1] * h[2];
    const auto n_atoms = static_cast<double>(lmp->atom->natoms);
    if (volume < SMALLEST_VOLUME * n_atoms)
      return fmt::format("has {:.2g} A^3 for each of its {} atoms, less than in any known material",
                         volume / n_atoms, lmp->atom->natoms);
    const auto density = AMU_PER_CUBIC_ANGSTROM * sums.mass / volume;
    if (density > HIGHEST_DENSITY)
      return fmt::format("gives the atoms of the model a density of {:.3g} g/cm^3, more than any "
                         "known material has",
                         density);
    return "";
  }

}    // namespace

void check_cell(LAMMPS *lmp, const std::vector<int64_t> &species_of_type)
{
  const auto sums = sum_atoms(lmp, species_of_type);
  if (sums.mass == 0.0) return;
  const auto wrong = fault(lmp, sums);
  if (!wrong.empty())
    lmp->error->all(FLERR,
                    "so3k: the box {}: correct it in the data file or by change_box, or give "
                    "'boundary f f f' and walls around the atoms if they have no periodic cell",
                    wrong);
}

}    // namespace So3k
