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

  /// The part of forces and virial from one list of pairs, or from terms without pairs, in eV and
  /// Å; what is not asked for is undefined.
  struct Part {
    at::Tensor forces;                // (atoms of LAMMPS, 3), or (centres, 3) without pairs
    at::Tensor virial;                // (3, 3)
    at::Tensor of_atoms, centroid;    // (atoms or centres, 3, 3)
  };

  /// What a step gives to LAMMPS; on the device until `hand_over`.
  struct Results {
    at::Tensor sum;                // of all numbers, finite if all are
    at::Tensor parts;              // of the energy, (centres, 4), or summed (1, 4), eV
    at::Tensor charges, ratios;    // (centres,), for fix pair and compute pair
    std::vector<Part> of_pairs;
    std::vector<Part> of_centres;
  };

  void evaluate();
  void update_system(bool first);
  Prediction predict();
  Results collect(const Prediction &found, const std::vector<at::Tensor> &gradients);
  Part of_pairs(const So3k::Pairs &pairs, const at::Tensor &gradients, bool symmetric) const;
  Part of_centres(const at::Tensor &gradient, const at::Tensor &virials) const;
  void hand_over(Results &results) const;
  void tally_energies(const at::Tensor &parts);
  void tally_outputs(const at::Tensor &charges, const at::Tensor &ratios);
  void tally_pairs(const Part &part);
  void tally_centres(const Part &part);
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
  bool outputs_wanted = false;    // charges and ratios, by fix pair
  std::vector<double> charge_of_atom = {0.0}, ratio_of_atom = {0.0};    // of LAMMPS atoms
  std::vector<int64_t> species_of_type;    // atomic number of each type, 0 for NULL
  bool composition_checked = false;        // since the model was loaded
  double energy_unit = 1.0;                // LAMMPS energy units in one eV; lengths are Å in all
};

}    // namespace LAMMPS_NS

#endif
