/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_PAIRS_H
#define SO3K_PAIRS_H

#include "exchange.h"

namespace LAMMPS_NS {
class NeighList;
}    // namespace LAMMPS_NS

namespace So3k {

/// The atoms of the model among those of LAMMPS.
struct Centres {
  std::vector<int> atoms;             // LAMMPS atom of each centre row
  std::vector<Location> locations;    // of every atom, owned or ghost
};

/// Pairs and their rows.
struct Pairs {
  at::Tensor vectors;           // (pairs, 3) r_j - r_i, float64, Å
  at::Tensor idx_i, idx_j;      // (pairs,) rows
  at::Tensor atom_i, atom_j;    // (pairs,) LAMMPS atoms, owned or ghost
};

/// F_i = sum g_ij - sum g_ji of n_atoms atoms of LAMMPS (n_atoms, 3), and W = -sum r x g (3, 3),
/// from the gradient g of pairs, (pairs, 3); float64, on their device.
std::pair<at::Tensor, at::Tensor> tally(const Pairs &pairs, const at::Tensor &gradients,
                                        int n_atoms);

/// One neighbor list of LAMMPS as tensors on the device.
///
/// Between two builds of the list only positions travel. Rows are the owned atoms of the model
/// (centres), followed by the atoms of other ranks that appear in a pair. A periodic image of an
/// atom has no separate row.
class PairList {
 public:
  PairList(MPI_Comm world, at::Device device) : exchange(world), device(device) {}

  /// Collective: read a new list, and the neighbors of centres that it leaves out; skip pairs
  /// beyond `reach`.
  void rebuild(const LAMMPS_NS::NeighList *list, const std::vector<std::vector<int>> &hidden,
               const Centres &centres, const double *const *x, double reach, int me);
  /// The species of the rows; types may change without a new list (fix atom/swap).
  void refresh(const int *type, const std::vector<int64_t> &species_of_type);
  /// The pairs within the cutoff now; on a GPU others may be among them.
  void update(const at::Tensor &x, double cutoff);

  int64_t n_rows() const { return static_cast<int64_t>(row_atoms.size()); }
  double bytes() const;

  Pairs pairs;           // at this step
  at::Tensor species;    // (rows,) atomic numbers
  Exchange exchange;     // of the centre rows to the other ranks that have them in a pair

 private:
  std::vector<Location> add_remote_rows(const Centres &centres, int me);
  void update_on_cpu(const at::Tensor &x, double cutoff);

  at::Device device;
  std::vector<int> row_atoms;                         // one LAMMPS atom for each row
  std::vector<int64_t> row_species;                   // content of `species`
  std::vector<int64_t> candidates_i, candidates_j;    // LAMMPS atoms of the pairs within reach
  Pairs candidates;                                   // the same on the device, without vectors
  std::vector<size_t> within;                         // candidates within the cutoff now
};

}    // namespace So3k

#endif
