/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_SYSTEM_H
#define SO3K_SYSTEM_H

#include "pairs.h"

#include "pointers.h"

#include <array>

namespace LAMMPS_NS {
class NeighList;
class Pair;
}    // namespace LAMMPS_NS

namespace So3k {

/// The atoms of LAMMPS that the model describes, and their pairs.
class System : protected LAMMPS_NS::Pointers {
 public:
  System(LAMMPS_NS::LAMMPS *lmp, at::Device device) :
      Pointers(lmp), near(world, device), long_pairs(world, device), device(device)
  {
  }

  /// Collective: find the owned atoms that have an element, and tell the ghosts which ones they
  /// are. Pairs are taken over from the lists afterwards.
  void find_centres(LAMMPS_NS::Pair *pair, const LAMMPS_NS::NeighList *list,
                    const std::vector<int64_t> &species_of_type);
  /// Collective: read a new list, whose pairs may come within the cutoff; `once` if it has each
  /// pair once. Bonded pairs of weight zero, which LAMMPS leaves out, are added.
  void rebuild(PairList &pairs, const LAMMPS_NS::NeighList *list, double cutoff, bool once);

  /// Read the positions.
  void update();
  /// Read types: the pairs of a list within the cutoff now.
  void update(PairList &pairs, double cutoff, const std::vector<int64_t> &species_of_type) const;

  /// The locations of atoms as LAMMPS sends them to the ghosts of other ranks.
  int pack_locations(int n, const int *atoms, double *buffer) const;
  void unpack_locations(int n, int first, const double *buffer);

  /// Of the centres, (centres, 3), Å, on the device: in the box, and in the image of their flags.
  at::Tensor positions() const;
  at::Tensor unwrapped() const { return unwrapped_on_host().to(device); }
  at::Tensor unwrapped_on_host() const;
  const at::Tensor &cell() const { return lattice; }    // (3, 3), lattice vectors as rows, Å

  double bytes() const;    // memory of lists and positions

  int64_t n_centres = 0;
  Centres centres;
  PairList near, long_pairs;    // of the layers, each in both directions; of charges, each once
  bool ready = false;

 private:
  std::vector<std::vector<int>> hidden_neighbors(bool once) const;

  at::Device device;
  at::Tensor x;                   // (owned and ghosts, 3), Å
  at::Tensor rows;                // (centres,) LAMMPS atoms
  at::Tensor lattice;             // of `cell`
  std::array<double, 6> shape;    // domain->h of `lattice`
};

}    // namespace So3k

#endif
