/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_SYSTEM_H
#define SO3K_SYSTEM_H

#include "model.h"
#include "pointers.h"

namespace LAMMPS_NS {
class NeighList;
class Pair;
}    // namespace LAMMPS_NS

namespace So3k {

/// The atoms and neighbour list of LAMMPS as tensors on the device.
///
/// Between two builds of the list only positions travel. Rows are the owned atoms of the model
/// (centres) and then the atoms of other ranks; a periodic image of an atom is no row of its own.
class System : protected LAMMPS_NS::Pointers {
 public:
  System(LAMMPS_NS::LAMMPS *lmp, at::Device device) : Pointers(lmp), exchange(world), device(device)
  {
  }

  /// Collective: take over a new neighbour list.
  void rebuild(LAMMPS_NS::Pair *pair, const LAMMPS_NS::NeighList *list, double cutoff,
               const std::vector<int64_t> &species_of_type);

  /// Read positions and types: the pairs within the cutoff now.
  void update(double cutoff, const std::vector<int64_t> &species_of_type);

  /// The homes of atoms as LAMMPS sends them to the ghosts of other ranks.
  int pack_homes(int n, const int *atoms, double *buffer) const;
  void unpack_homes(int n, int first, const double *buffer);

  int64_t n_centres = 0;
  std::vector<int> centres;     // LAMMPS atom of each centre row
  at::Tensor species;           // (rows,) atomic numbers
  Pairs pairs;                  // at this step
  at::Tensor atom_i, atom_j;    // (pairs,) LAMMPS atoms, owned or ghost, at this step
  Exchange exchange;
  bool ready = false;

 private:
  void find_homes(LAMMPS_NS::Pair *pair, const LAMMPS_NS::NeighList *list,
                  const std::vector<int64_t> &species_of_type);
  void find_candidates(const LAMMPS_NS::NeighList *list, double reach);
  std::vector<Home> add_remote_rows();
  void refresh_species(const std::vector<int64_t> &species_of_type);

  at::Device device;
  std::vector<Home> homes;                                // of every atom, owned or ghost
  std::vector<int> row_atoms;                             // one LAMMPS atom for each row
  std::vector<int64_t> row_species;                       // what `species` holds
  std::vector<int64_t> candidates_i, candidates_j;        // atoms of the pairs within cutoff + skin
  at::Tensor near_atom_i, near_atom_j, near_i, near_j;    // the same pairs as atoms and as rows
};

}    // namespace So3k

#endif
