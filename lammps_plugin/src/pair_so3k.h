/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_PAIR_SO3K_H
#define SO3K_PAIR_SO3K_H

// torch before LAMMPS, whose headers define macros.
#include "far.h"
#include "system.h"

#include "pair.h"

#include <memory>

namespace LAMMPS_NS {

/// pair_style so3k [precision float32|float64] [device auto|cpu|cuda] [groups molecule|all]
///                 [max_group N]
/// pair_coeff * * MODEL.pt ELEMENT|NULL ...
class PairSo3k : public Pair {
 public:
  PairSo3k(LAMMPS *lmp);
  ~PairSo3k() override;

  void settings(int narg, char **arg) override;
  void coeff(int narg, char **arg) override;
  void init_style() override;
  double init_one(int i, int j) override;
  void compute(int eflag, int vflag) override;

  int pack_forward_comm(int n, int *list, double *buffer, int pbc_flag, int *pbc) override;
  void unpack_forward_comm(int n, int first, double *buffer) override;

 private:
  void allocate();
  void forget_coefficients();
  at::Device choose_device() const;
  std::string read_file(const std::string &path) const;
  void load(const std::string &path);
  void check_special_bonds() const;
  void check_groups() const;
  void report() const;

  void evaluate();
  void check_finite(const at::Tensor &energies, const at::Tensor &gradient) const;
  void tally(const at::Tensor &energies, const at::Tensor &gradient);
  void tally_energies(const at::Tensor &energies);
  void tally_virial(const at::Tensor &gradient);
  void tally_atom_virial(const at::Tensor &gradient);
  void tally_far(const So3k::FarGradient &gradient);
  void add_virial(const at::Tensor &total);
  using AtomVirial = at::TensorAccessor<double, 2>;
  void add_atom_virial(int i, const AtomVirial &share, const AtomVirial &centroid);

  std::optional<at::ScalarType> precision;    // of the parameters; the model's own if not set
  std::string device_wish = "auto";
  So3k::GroupOptions group_options;
  std::unique_ptr<So3k::Model> model;
  std::unique_ptr<So3k::System> system;
  std::unique_ptr<So3k::Far> far;          // none if the model is local
  std::vector<int64_t> species_of_type;    // atomic number of each type, 0 for NULL
  double energy_unit = 1.0;                // LAMMPS energy units in one eV; lengths are Å in all
};

}    // namespace LAMMPS_NS

#endif
