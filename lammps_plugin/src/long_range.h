/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_LONG_RANGE_H
#define SO3K_LONG_RANGE_H

#include "model.h"

#include "pointers.h"

namespace So3k {

class System;

/// Energies of the centres that follow from charges and volumes, and all their derivatives.
struct LongRangeDerivatives {
  at::Tensor energies;     // (centres, 2) electrostatics and dispersion, eV, float64
  at::Tensor vectors;      // (long-range pairs, 3) dE/d(r_j - r_i), eV/Å
  at::Tensor charges;      // (centres,) dE/dq, eV/e
  at::Tensor ratios;       // (centres,) dE/dh, eV
  at::Tensor positions;    // (centres, 3) dE/dr of terms without pairs, eV/Å; undefined without
  at::Tensor virials;      // (centres, 3, 3) of the same terms, eV
};

/// Electrostatics and dispersion with derivatives in closed form: long-range pairs have no autograd
/// history.
class LongRange : protected LAMMPS_NS::Pointers {
 public:
  LongRange(LAMMPS_NS::LAMMPS *lmp, const Model &model) : Pointers(lmp), model(model) {}

  /// Before a run: refuse boxes for which the Coulomb sum is not defined.
  void check() const;
  /// The name of the Coulomb sum for the log.
  std::string form() const;
  /// Collective: energies and derivatives for the charges q and Hirshfeld ratios h of the centres;
  /// `of_atoms` if the virials of single atoms are needed, not only their sum.
  LongRangeDerivatives evaluate(const System &system, const at::Tensor &q, const at::Tensor &h,
                                bool of_atoms) const;

 private:
  void add_self(LongRangeDerivatives &derivatives, const at::Tensor &q) const;
  void add_lattice(LongRangeDerivatives &derivatives, const System &system, const at::Tensor &q,
                   bool of_atoms) const;
  void add_open(LongRangeDerivatives &derivatives, const System &system, const at::Tensor &q) const;
  at::Tensor gather(const at::Tensor &rows, int64_t &first) const;

  const Model &model;
};

}    // namespace So3k

#endif
