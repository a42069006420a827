/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#include "pairs.h"

#include <algorithm>
#include <array>

#include "lmptype.h"
#include "neigh_list.h"

using at::Tensor;
using LAMMPS_NS::NeighList;

namespace So3k {

namespace {

  constexpr int64_t FEW = 65536;    // pairs, as in so3k_md/reads.py

  Tensor to_device(const std::vector<int64_t> &values, at::Device device)
  {
    return at::tensor(values, at::kLong).to(device);
  }

  /// In one pass, because there are many long-range pairs; those of an atom are consecutive.
  template <typename T>
  void tally_on_cpu(const Pairs &pairs, const Tensor &gradients, double *forces, double *virial)
  {
    const auto n = pairs.atom_i.numel();
    const auto *d = pairs.vectors.const_data_ptr<double>();
    const auto *g = gradients.const_data_ptr<T>();
    const auto *i = pairs.atom_i.const_data_ptr<int64_t>();
    const auto *j = pairs.atom_j.const_data_ptr<int64_t>();
    for (int64_t p = 0; p < n;) {
      const auto here = i[p];
      double force[3] = {}, outer[9] = {};
      for (; p < n && i[p] == here; ++p)
        for (int b = 0; b < 3; ++b) {
          const double g_b = g[3 * p + b];
          forces[3 * j[p] + b] -= g_b;
          force[b] += g_b;
          for (int a = 0; a < 3; ++a) outer[3 * a + b] += d[3 * p + a] * g_b;
        }
      for (int b = 0; b < 3; ++b) forces[3 * here + b] += force[b];
      for (int k = 0; k < 9; ++k) virial[k] -= outer[k];
    }
  }

}    // namespace

std::pair<Tensor, Tensor> tally(const Pairs &pairs, const Tensor &gradients, int n_atoms)
{
  if (!gradients.device().is_cpu()) {
    const auto g = gradients.to(at::kDouble);
    const auto forces = at::zeros({n_atoms, 3}, g.options())
                            .index_add_(0, pairs.atom_i, g)
                            .index_add_(0, pairs.atom_j, g, -1);
    return {forces, -pairs.vectors.t().mm(g)};
  }
  auto forces = at::zeros({n_atoms, 3}, at::kDouble), virial = at::zeros({3, 3}, at::kDouble);
  const auto on_cpu =
      gradients.scalar_type() == at::kFloat ? tally_on_cpu<float> : tally_on_cpu<double>;
  on_cpu(pairs, gradients.contiguous(), forces.data_ptr<double>(), virial.data_ptr<double>());
  return {forces, virial};
}

/// The list may have a larger cutoff than requested (hybrid, comm_modify).
void PairList::rebuild(const NeighList *list, const std::vector<std::vector<int>> &hidden,
                       const Centres &centres, const double *const *x, double reach, int me)
{
  candidates_i.clear();
  candidates_j.clear();
  const auto add = [&](int i, int j) {
    if (centres.locations[j].rank < 0) return;
    const double dx = x[j][0] - x[i][0], dy = x[j][1] - x[i][1], dz = x[j][2] - x[i][2];
    if (dx * dx + dy * dy + dz * dz > reach * reach) return;
    candidates_i.push_back(i);
    candidates_j.push_back(j);
  };
  for (size_t row = 0; row < centres.atoms.size(); ++row) {
    const int i = centres.atoms[row];
    for (int jj = 0; jj < list->numneigh[i]; ++jj) add(i, list->firstneigh[i][jj] & NEIGHMASK);
    if (!hidden.empty())
      for (const int j : hidden[row]) add(i, j);
  }
  const auto remote = add_remote_rows(centres, me);
  exchange.plan(static_cast<int64_t>(centres.atoms.size()), remote, device);
  row_species.clear();
  species = Tensor();
}

/// Rows of the candidates, and a row for every atom of another rank among them.
std::vector<Location> PairList::add_remote_rows(const Centres &centres, int me)
{
  const auto &locations = centres.locations;
  std::vector<char> used(locations.size(), 0);
  for (const auto j : candidates_j) used[j] = locations[j].rank != me;
  std::vector<std::pair<Location, int>>
      ghosts;    // sorted by location, so that images of one atom are consecutive
  for (size_t j = 0; j < used.size(); ++j)
    if (used[j]) ghosts.emplace_back(locations[j], static_cast<int>(j));
  std::sort(ghosts.begin(), ghosts.end());

  std::vector<Location> remote;
  std::vector<int64_t> row_of_atom(locations.size());
  row_atoms = centres.atoms;
  for (size_t j = 0; j < locations.size(); ++j) row_of_atom[j] = locations[j].row;
  for (const auto &[location, j] : ghosts) {
    if (remote.empty() || !(remote.back() == location)) {
      remote.push_back(location);
      row_atoms.push_back(j);
    }
    row_of_atom[j] = static_cast<int64_t>(row_atoms.size()) - 1;
  }

  std::vector<int64_t> rows_i, rows_j;
  for (const auto i : candidates_i) rows_i.push_back(row_of_atom[i]);
  for (const auto j : candidates_j) rows_j.push_back(row_of_atom[j]);
  candidates = {Tensor(), to_device(rows_i, device), to_device(rows_j, device),
                to_device(candidates_i, device), to_device(candidates_j, device)};
  return remote;
}

double PairList::bytes() const
{
  auto sum =
      static_cast<double>(candidates_i.capacity() + candidates_j.capacity()) * sizeof(int64_t);
  sum += static_cast<double>(within.capacity()) * sizeof(size_t);
  sum += static_cast<double>(row_atoms.capacity()) * (sizeof(int) + sizeof(int64_t));
  for (const auto *list : {&candidates, &pairs})
    for (const auto *tensor :
         {&list->vectors, &list->idx_i, &list->idx_j, &list->atom_i, &list->atom_j})
      if (tensor->defined()) sum += static_cast<double>(tensor->nbytes());
  return sum;
}

void PairList::refresh(const int *type, const std::vector<int64_t> &species_of_type)
{
  std::vector<int64_t> now(row_atoms.size());
  std::transform(row_atoms.begin(), row_atoms.end(), now.begin(),
                 [&](int i) { return species_of_type[type[i]]; });
  if (now == row_species && species.defined()) return;
  row_species = std::move(now);
  species = to_device(row_species, device);
}

void PairList::update(const Tensor &x, double cutoff)
{
  if (device.is_cpu()) return update_on_cpu(x, cutoff);
  const auto vectors = x.index_select(0, candidates.atom_j) - x.index_select(0, candidates.atom_i);
  // a few pairs beyond the cutoff, which contribute nothing, cost less than the wait for their
  // number
  if (vectors.size(0) <= FEW) {
    pairs = candidates;
    pairs.vectors = vectors;
    return;
  }
  const auto within = (vectors.square().sum(1) < cutoff * cutoff).nonzero().squeeze(1);
  const auto pick = [&](const Tensor &all) { return all.index_select(0, within); };
  pairs = {pick(vectors), pick(candidates.idx_i), pick(candidates.idx_j), pick(candidates.atom_i),
           pick(candidates.atom_j)};
}

/// The same in one pass over the candidates, because there are many long-range pairs: the tensors
/// of the steps above do not fit a cache, and take ten times as long.
void PairList::update_on_cpu(const Tensor &x, double cutoff)
{
  const auto *r = x.data_ptr<double>();
  const auto vector = [&](size_t k) {
    const auto *from = r + 3 * candidates_i[k], *to = r + 3 * candidates_j[k];
    return std::array<double, 3>{to[0] - from[0], to[1] - from[1], to[2] - from[2]};
  };
  within.clear();
  for (size_t k = 0; k < candidates_i.size(); ++k) {
    const auto d = vector(k);
    if (d[0] * d[0] + d[1] * d[1] + d[2] * d[2] < cutoff * cutoff) within.push_back(k);
  }
  const auto n = static_cast<int64_t>(within.size());
  const auto rows = [&] { return at::empty({n}, at::kLong); };
  pairs = {at::empty({n, 3}, at::kDouble), rows(), rows(), rows(), rows()};
  auto *vectors = pairs.vectors.data_ptr<double>();
  const auto pick = [&](const Tensor &of, const Tensor &all) {
    auto *target = of.data_ptr<int64_t>();
    const auto *source = all.data_ptr<int64_t>();
    for (const auto k : within) *target++ = source[k];
  };
  for (const auto k : within)
    for (const double component : vector(k)) *vectors++ = component;
  pick(pairs.idx_i, candidates.idx_i);
  pick(pairs.idx_j, candidates.idx_j);
  pick(pairs.atom_i, candidates.atom_i);
  pick(pairs.atom_j, candidates.atom_j);
}

}    // namespace So3k
