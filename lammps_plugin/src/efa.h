/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_EFA_H
#define SO3K_EFA_H

#include "nonlocal.h"
#include "recompute.h"

namespace So3k {

/// Euclidean fast attention: sums over each group, then the messages to each atom from these sums.
///
/// Time is linear in atoms. Small groups are computed by pairs, and their members are gathered if
/// ranks share them. Sums over waves, which are long rows, are computed for large groups only; the
/// ranks that share a large group add their sums. Atoms are computed tile by tile, and again for
/// the gradient.
class Efa : public Nonlocal {
 public:
  Efa(LAMMPS_NS::LAMMPS *lmp, const Model &model, const GroupOptions &options) :
      Nonlocal(lmp, model, options)
  {
  }

  void update(const System &system) override;
  std::vector<Parcel> outgoing(const Part &layer, const at::Tensor &x,
                               const at::Tensor &chi) const override;
  void add(const Part &layer, at::TensorList arrived, at::Tensor &dx,
           at::Tensor &dchi) const override;
  std::vector<at::Tensor> leaves() const override { return {r_src, lattice}; }

 private:
  /// Atoms that are evaluated at once: of several small groups, or some of one large group.
  struct Tile {
    at::Tensor group;    // (atoms,) counted from the first of the tile
    int64_t n_groups;
    int64_t summed;    // number of the large group, -1 for small ones
  };

  void connect(const System &system) override;
  void add_tiles(int64_t first, int64_t last, const at::Tensor &number);
  std::string describe_exchange(const System &system) const override;
  void check_reach() const;
  std::vector<at::Tensor> by_tile(const at::Tensor &rows, size_t n_tiles) const;
  at::Tensor evaluate(const Formula &f, const std::vector<at::Tensor> &inputs) const;
  at::Tensor signed_waves(const at::Tensor &waves) const;
  at::Tensor sums(const Part &layer, const Tile &tile, const std::vector<at::Tensor> &inputs) const;
  at::Tensor read(const Part &layer, const Tile &tile, const std::vector<at::Tensor> &inputs) const;
  at::Tensor whole(const Part &layer, const Tile &tile,
                   const std::vector<at::Tensor> &inputs) const;

  int64_t n_large = 0;                // the first groups
  std::vector<Tile> tiles;            // those of large groups first
  size_t n_summed = 0;                // tiles of large groups
  std::vector<int64_t> tile_sizes;    // atoms
  at::Tensor by_group, places;        // sources group after group, and where the centres are there
  at::Tensor lattice;                 // (1, 3, 3)
  std::vector<at::Tensor> waves;      // of each tile
};

}    // namespace So3k

#endif
