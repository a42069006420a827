/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#include "system.h"

#include <algorithm>
#include <cmath>

#include "atom.h"
#include "comm.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "pair.h"

using at::Tensor;
using LAMMPS_NS::NeighList;
using LAMMPS_NS::Pair;

namespace So3k {

namespace {

  Tensor to_device(const std::vector<int64_t> &values, at::Device device)
  {
    return at::tensor(values, at::kLong).to(device);
  }

}    // namespace

void System::rebuild(Pair *pair, const NeighList *list, double cutoff,
                     const std::vector<int64_t> &species_of_type)
{
  find_homes(pair, list, species_of_type);
  find_candidates(list, cutoff + neighbor->skin);
  const auto remote = add_remote_rows();
  exchange.plan(n_centres, remote, device);
  row_species.clear();
  ready = true;
}

/// Centres are the list's atoms that have an element; ghosts learn from their owner which one they
/// are.
void System::find_homes(Pair *pair, const NeighList *list,
                        const std::vector<int64_t> &species_of_type)
{
  homes.assign(atom->nlocal + atom->nghost, Home());
  centres.clear();
  for (int ii = 0; ii < list->inum; ++ii) {
    const int i = list->ilist[ii];
    if (species_of_type[atom->type[i]] == 0) continue;
    homes[i] = {comm->me, static_cast<int>(centres.size())};
    centres.push_back(i);
  }
  n_centres = static_cast<int64_t>(centres.size());
  comm->forward_comm(pair);
}

int System::pack_homes(int n, const int *atoms, double *buffer) const
{
  int m = 0;
  for (int k = 0; k < n; ++k) {
    buffer[m++] = homes[atoms[k]].rank;
    buffer[m++] = homes[atoms[k]].row;
  }
  return m;
}

void System::unpack_homes(int n, int first, const double *buffer)
{
  for (int k = 0; k < n; ++k)
    homes[first + k] = {static_cast<int>(buffer[2 * k]), static_cast<int>(buffer[2 * k + 1])};
}

/// The list may reach further than cutoff + skin (hybrid, comm_modify): keep what can come within
/// the cutoff.
void System::find_candidates(const NeighList *list, double reach)
{
  const auto *const *x = atom->x;
  candidates_i.clear();
  candidates_j.clear();
  for (const int i : centres) {
    for (int jj = 0; jj < list->numneigh[i]; ++jj) {
      const int j = list->firstneigh[i][jj] & NEIGHMASK;
      if (homes[j].rank < 0) continue;
      const double dx = x[j][0] - x[i][0], dy = x[j][1] - x[i][1], dz = x[j][2] - x[i][2];
      if (dx * dx + dy * dy + dz * dz > reach * reach) continue;
      candidates_i.push_back(i);
      candidates_j.push_back(j);
    }
  }
}

/// Rows of the candidates, and a row for every atom of another rank among them.
std::vector<Home> System::add_remote_rows()
{
  std::vector<char> used(homes.size(), 0);
  for (const auto j : candidates_j) used[j] = homes[j].rank != comm->me;
  std::vector<std::pair<Home, int>>
      ghosts;    // sorted by home: images of one atom lie side by side
  for (size_t j = 0; j < used.size(); ++j)
    if (used[j]) ghosts.emplace_back(homes[j], static_cast<int>(j));
  std::sort(ghosts.begin(), ghosts.end());

  std::vector<Home> remote;
  std::vector<int64_t> row_of_atom(homes.size());
  row_atoms = centres;
  for (size_t j = 0; j < homes.size(); ++j) row_of_atom[j] = homes[j].row;
  for (const auto &[home, j] : ghosts) {
    if (remote.empty() || !(remote.back() == home)) {
      remote.push_back(home);
      row_atoms.push_back(j);
    }
    row_of_atom[j] = static_cast<int64_t>(row_atoms.size()) - 1;
  }

  std::vector<int64_t> rows_i, rows_j;
  for (const auto i : candidates_i) rows_i.push_back(row_of_atom[i]);
  for (const auto j : candidates_j) rows_j.push_back(row_of_atom[j]);
  near_i = to_device(rows_i, device);
  near_j = to_device(rows_j, device);
  near_atom_i = to_device(candidates_i, device);
  near_atom_j = to_device(candidates_j, device);
  return remote;
}

void System::update(double cutoff, const std::vector<int64_t> &species_of_type)
{
  refresh_species(species_of_type);
  const int n_atoms = atom->nlocal + atom->nghost;
  const auto x = n_atoms ? at::from_blob(atom->x[0], {n_atoms, 3}, at::kDouble).to(device)
                         : at::empty({0, 3}, at::dtype(at::kDouble).device(device));
  // A pair of NaN would fall through the cutoff unseen.
  if (!std::isfinite(x.sum().item<double>())) throw std::runtime_error("positions are not finite");
  const auto vectors = x.index_select(0, near_atom_j) - x.index_select(0, near_atom_i);
  const auto within = (vectors.square().sum(1) < cutoff * cutoff).nonzero().squeeze(1);
  pairs = {vectors.index_select(0, within).requires_grad_(), near_i.index_select(0, within),
           near_j.index_select(0, within)};
  atom_i = near_atom_i.index_select(0, within);
  atom_j = near_atom_j.index_select(0, within);
}

/// Types may change without a new list (fix atom/swap): compare, and upload if they did.
void System::refresh_species(const std::vector<int64_t> &species_of_type)
{
  std::vector<int64_t> now(row_atoms.size());
  std::transform(row_atoms.begin(), row_atoms.end(), now.begin(),
                 [&](int i) { return species_of_type[atom->type[i]]; });
  if (now == row_species && species.defined()) return;
  row_species = std::move(now);
  species = to_device(row_species, device);
}

}    // namespace So3k
