/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_PAIR_SO3K_H
#define SO3K_PAIR_SO3K_H

// torch before LAMMPS, whose headers define macros.
#include "charge_state.h"
#include "long_range.h"
#include "nonlocal.h"
#include "settings.h"
#include "system.h"

#include "pair.h"

#include <memory>

namespace LAMMPS_NS {

/// pair_style so3k [precision float32|float64] [device auto|cpu|cuda] [groups molecule|all]
///                 [max_group N] [coulomb kspace|shifted|shifted+self] [cutoff_lr A]
///                 [charge Q] [spin S] [fragments all|molecule] [fragment_charge ID Q] ...
///                 [cut_bonds refuse|allow]
/// pair_coeff * * MODEL.pt ELEMENT|NULL ...
class __attribute__((visibility("default"))) PairSo3k : public Pair {
 public:
  PairSo3k(LAMMPS *lmp);
  ~PairSo3k() override;

  void settings(int narg, char **arg) override;
  void coeff(int narg, char **arg) override;
  void init_style() override;
  void init_list(int id, NeighList *list) override;
  double init_one(int i, int j) override;
  void compute(int eflag, int vflag) override;

  int pack_forward_comm(int n, int *list, double *buffer, int pbc_flag, int *pbc) override;
  void unpack_forward_comm(int n, int first, double *buffer) override;
  void *extract_peratom(const char *name, int &n_columns) override;
  double memory_usage() override;

 private:
  void allocate();
  void discard_model();
  std::string read_file(const std::string &path) const;
  void load(const std::string &path);
  void check_neighbors() const;
  void check_groups() const;
  void check_settings() const;
  void warn_incomparable();
  void request_lists();
  void report() const;

  /// What the model predicts for the centres of this rank.
  struct Prediction {
    at::Tensor parts;    // (centres, 4) short range, repulsion, electrostatics, dispersion, eV
    at::Tensor charges, ratios;                // (centres,), undefined without long range
    So3k::LongRangeDerivatives derivatives;    // likewise
    std::vector<at::Tensor> outputs, seeds;    // of the one gradient through the layers
  };

  void evaluate();
  void update_system(bool first);
  Prediction predict() const;
  void check_finite(const Prediction &found, const at::Tensor &gradient) const;
  void tally_energies(const Prediction &found);
  void tally_outputs(const Prediction &found);
  void tally_pairs(const So3k::Pairs &pairs, const at::Tensor &gradients, bool symmetric);
  void tally_atom_virial(const So3k::Pairs &pairs, const at::Tensor &gradient, bool symmetric);
  void tally_atoms(const at::Tensor &gradient, const at::Tensor &virials_of_atoms);
  void add_virial(const at::Tensor &total);
  using AtomVirial = at::TensorAccessor<double, 2>;
  void add_atom_virial(int i, const AtomVirial &share, const AtomVirial &centroid);

  So3k::Threads threads;
  So3k::Settings options;
  std::unique_ptr<So3k::Model> model;
  std::unique_ptr<So3k::System> system;
  std::unique_ptr<So3k::Nonlocal> nonlocal;    // none if the model is local
  std::unique_ptr<So3k::ChargeState> charge_state;
  std::unique_ptr<So3k::LongRange> long_range;    // none if the model has no charges
  NeighList *long_list = nullptr;
  std::vector<double> charge_of_atom = {0.0}, ratio_of_atom = {0.0};    // of LAMMPS atoms
  std::vector<int64_t> species_of_type;    // atomic number of each type, 0 for NULL
  bool composition_checked = false;        // since the model was loaded
  double energy_unit = 1.0;                // LAMMPS energy units in one eV; lengths are Å in all
};

}    // namespace LAMMPS_NS

#endif
