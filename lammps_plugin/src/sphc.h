/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_SPHC_H
#define SO3K_SPHC_H

#include "nonlocal.h"

namespace So3k {

/// Attention between all pairs of a group that are near in SPHC space.
///
/// The members that other ranks own are gathered: positions once per step, (x, χ) before each
/// layer. Pairs are evaluated tile by tile and again for the gradient, so that memory grows with
/// the atoms of a rank and of its groups, not with their pairs.
class Sphc : public Nonlocal {
 public:
  Sphc(LAMMPS_NS::LAMMPS *lmp, const Model &model, const GroupOptions &options) :
      Nonlocal(lmp, model, options)
  {
  }

  std::vector<Parcel> outgoing(const Part &layer, const at::Tensor &x,
                               const at::Tensor &chi) const override;
  void add(const Part &layer, at::TensorList arrived, at::Tensor &dx,
           at::Tensor &dchi) const override;

 private:
  void connect(const System &system) override;
  std::string describe_exchange(const System &system) const override;

  c10::IValue rows;              // the `Groups` of the model
  std::vector<int64_t> tiles;    // bounds of tiles of centres
};

}    // namespace So3k

#endif
