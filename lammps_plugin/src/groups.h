/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_GROUPS_H
#define SO3K_GROUPS_H

#include "exchange.h"

#include "pointers.h"

#include <string>

namespace So3k {

class System;

/// Sums over whole groups from the sums over each rank's atoms of them; its own adjoint.
///
/// The first rows are groups whose sums one of their ranks, the host, adds up; other rows do not
/// change.
class GroupSum : public Link {
 public:
  explicit GroupSum(MPI_Comm world) : hosts(world) {}
  bool busy() const override { return hosts.busy(); }
  at::Tensor forward(const at::Tensor &partial) const override;
  at::Tensor adjoint(const at::Tensor &gradient) const override { return forward(gradient); }
  /// The largest value of whole groups from those of each rank's atoms.
  at::Tensor largest(const at::Tensor &partial) const;

  Exchange hosts;    // rows of groups: those that this rank hosts, then those of other hosts
};

/// Groups of non-local attention, whichever ranks own their atoms.
///
/// Groups are the molecules of LAMMPS, or all atoms of the model. A rank gathers the members that
/// other ranks own, unless the group is large; then the ranks that share it add up sums. Each rank
/// numbers the groups of its atoms: first the summed ones, those that it hosts before the others in
/// the order of their hosts; then the rest, large before small. A rendezvous finds the ranks that
/// share a group: they all send its id to the rank given by a hash of the id, which replies to
/// them.
class Groups : protected LAMMPS_NS::Pointers {
 public:
  Groups(LAMMPS_NS::LAMMPS *lmp, at::Device device, bool by_molecule) :
      Pointers(lmp), members(world), total(world), by_molecule(by_molecule), device(device)
  {
  }

  /// Collective: the groups of these atoms of LAMMPS; up to `gathered` atoms they are gathered.
  void find(const std::vector<int> &centres, int64_t gathered);
  /// Collective: refuse groups that are too large for attention of quadratic time, `row_bytes` for
  /// each atom and `pair_bytes` for each pair.
  void check_size(int64_t max_group, double row_bytes, double pair_bytes) const;
  /// Collective: plan `members` and `total`.
  void connect();
  /// Collective: refuse molecules that are not whole at the unwrapped positions r.
  void check_whole(const System &system, const at::Tensor &r) const;
  /// How many atoms with the molecule id 0, which are groups by themselves, have bonds.
  int64_t unnumbered(const System &system) const;
  /// What a user calls the group of this number.
  std::string name(int64_t number) const;
  /// The id of the molecule of this number.
  int64_t id(int64_t number) const { return shares[number].id; }

  int64_t n_groups = 0, n_summed = 0;    // on this rank; of these with sums over several ranks
  int64_t n_all = 0, largest = 0;        // groups on all ranks, atoms of the largest
  std::vector<int64_t> sizes;            // atoms of each group on all ranks
  at::Tensor group, group_src;           // of the centres; of these and the gathered members
  Exchange members;
  GroupSum total;

 private:
  struct Share {
    int64_t id;                    // molecule; 0 for an atom without one
    std::vector<int64_t> rows;     // centres
    int64_t size;                  // atoms on all ranks
    std::vector<int64_t> ranks;    // that have some, in rising order; empty if it is this one alone
    int host;                      // of its sum, -1 if there is none
  };

  void collect(const std::vector<int> &centres);
  void ask_directory();
  void number(int64_t gathered);
  at::Tensor split_bonds(const System &system, const at::Tensor &r) const;
  std::string called(int64_t id) const;

  bool by_molecule;
  at::Device device;
  std::vector<Share> shares;    // by number
};

}    // namespace So3k

#endif
