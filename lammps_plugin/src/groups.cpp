/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#include "groups.h"

#include "elements.h"
#include "system.h"

#include <algorithm>
#include <limits>
#include <tuple>
#include <unordered_map>

#include "atom.h"
#include "comm.h"
#include "error.h"

using at::Tensor;

namespace So3k {

namespace {

  /// Spreads ids evenly over n places.
  int place(int64_t id, size_t n)
  {
    const auto mixed = static_cast<uint64_t>(id) * 0x9E3779B97F4A7C15ULL;
    return static_cast<int>((mixed >> 32) % n);
  }

  constexpr double BOND = 1.3;     // longest bond in sums of covalent radii
  constexpr double SPLIT = 0.1;    // Å; images differ by much more, rounding by much less

}    // namespace

Tensor GroupSum::forward(const Tensor &partial) const
{
  const auto n_summed = hosts.n_rows(), n_other = partial.size(0) - n_summed;
  const auto sums = hosts.forward(hosts.adjoint(partial.narrow(0, 0, n_summed)));
  return at::cat({sums, partial.narrow(0, n_summed, n_other)});
}

Tensor GroupSum::largest(const Tensor &partial) const
{
  const auto n_summed = hosts.n_rows(), n_other = partial.size(0) - n_summed;
  const auto values = hosts.forward(hosts.largest(partial.narrow(0, 0, n_summed)));
  return at::cat({values, partial.narrow(0, n_summed, n_other)});
}

void Groups::find(const std::vector<int> &centres, int64_t gathered)
{
  collect(centres);
  ask_directory();
  number(gathered);
}

/// This rank's share of each group.
void Groups::collect(const std::vector<int> &centres)
{
  const auto id_of = [&](int64_t row) -> int64_t {
    return by_molecule ? atom->molecule[centres[row]] : 1;
  };
  std::vector<int64_t> rows(centres.size());
  for (size_t row = 0; row < rows.size(); ++row) rows[row] = static_cast<int64_t>(row);
  std::stable_sort(rows.begin(), rows.end(),
                   [&](int64_t a, int64_t b) { return id_of(a) < id_of(b); });
  shares.clear();
  for (const auto row : rows) {
    const auto id = id_of(row);
    if (shares.empty() || id == 0 || shares.back().id != id) shares.push_back({id, {}, 0, {}, -1});
    shares.back().rows.push_back(row);
    ++shares.back().size;
  }
}

/// Sizes of whole groups and the ranks that share them. Asked is: id, atoms. The answer, for shared
/// groups only: id, atoms, number of ranks, ranks.
void Groups::ask_directory()
{
  const auto n_ranks = static_cast<size_t>(comm->nprocs);
  std::vector<std::vector<int64_t>> questions(n_ranks), answers(n_ranks);
  std::unordered_map<int64_t, size_t> share_of;
  for (size_t k = 0; k < shares.size(); ++k) {
    if (shares[k].id == 0) continue;
    auto &question = questions[place(shares[k].id, n_ranks)];
    question.insert(question.end(), {shares[k].id, shares[k].size});
    share_of[shares[k].id] = k;
  }
  std::unordered_map<int64_t, Share> directory;
  const auto asked = all_to_all(questions, world);
  for (size_t rank = 0; rank < n_ranks; ++rank)
    for (size_t k = 0; k < asked[rank].size(); k += 2) {
      auto &entry = directory.try_emplace(asked[rank][k], Share{}).first->second;
      entry.size += asked[rank][k + 1];
      entry.ranks.push_back(static_cast<int64_t>(rank));
    }
  for (const auto &[id, entry] : directory) {
    if (entry.ranks.size() == 1) continue;
    for (const auto rank : entry.ranks) {
      auto &answer = answers[rank];
      answer.insert(answer.end(), {id, entry.size, static_cast<int64_t>(entry.ranks.size())});
      answer.insert(answer.end(), entry.ranks.begin(), entry.ranks.end());
    }
  }
  for (const auto &answer : all_to_all(answers, world))
    for (auto word = answer.begin(); word != answer.end();) {
      auto &share = shares[share_of.at(*word++)];
      share.size = *word++;
      const auto n_sharing = *word++;
      share.ranks.assign(word, word + n_sharing);
      word += n_sharing;
    }
}

/// In the order that the class describes.
void Groups::number(int64_t gathered)
{
  const auto me = comm->me;
  for (auto &share : shares)
    if (!share.ranks.empty() && share.size > gathered)
      share.host = static_cast<int>(share.ranks[place(share.id, share.ranks.size())]);
  const auto order = [me](const Share &share) {
    const int kind = share.host < 0 ? 2 : share.host != me;
    return std::make_tuple(kind, share.host, -share.size);
  };
  std::stable_sort(shares.begin(), shares.end(),
                   [&](const Share &a, const Share &b) { return order(a) < order(b); });

  n_groups = static_cast<int64_t>(shares.size());
  n_summed = 0;
  sizes.clear();
  int64_t here[2] = {0, 0};    // groups of which this is the first rank, atoms of the largest
  for (const auto &share : shares) {
    n_summed += share.host >= 0;
    sizes.push_back(share.size);
    here[0] += share.ranks.empty() || share.ranks[0] == me;
    here[1] = std::max(here[1], share.size);
  }
  MPI_Allreduce(&here[0], &n_all, 1, MPI_INT64_T, MPI_SUM, world);
  MPI_Allreduce(&here[1], &largest, 1, MPI_INT64_T, MPI_MAX, world);
}

/// Each rank of a group tells the others: id, its number of the group, number of rows, rows.
void Groups::connect()
{
  std::vector<std::vector<int64_t>> outgoing(comm->nprocs);
  std::unordered_map<int64_t, int64_t> shared;
  std::vector<int64_t> numbers;
  for (int64_t k = 0; k < n_groups; ++k) {
    const auto &share = shares[k];
    numbers.resize(std::max(numbers.size(), size_t(share.rows.back() + 1)));
    for (const auto row : share.rows) numbers[row] = k;
    if (!share.ranks.empty()) shared[share.id] = k;
    const int64_t n_rows = share.host < 0 ? share.rows.size() : 0;
    for (const auto rank : share.ranks) {
      if (rank == comm->me) continue;
      auto &words = outgoing[rank];
      words.insert(words.end(), {share.id, k, n_rows});
      words.insert(words.end(), share.rows.begin(), share.rows.begin() + n_rows);
    }
  }
  std::vector<Location> remote_members, host_of(n_summed);
  const auto n_centres = static_cast<int64_t>(numbers.size());
  const auto incoming = all_to_all(outgoing, world);
  for (int rank = 0; rank < comm->nprocs; ++rank)
    for (auto word = incoming[rank].begin(); word != incoming[rank].end();) {
      const auto k = shared.at(*word++);
      const auto remote_number = *word++;
      if (shares[k].host == rank) host_of[k] = {rank, static_cast<int>(remote_number)};
      for (auto n_remote_members = *word++; n_remote_members > 0; --n_remote_members) {
        remote_members.push_back({rank, static_cast<int>(*word++)});
        numbers.push_back(k);
      }
    }
  const auto others = std::find_if(host_of.begin(), host_of.end(),
                                   [](const Location &host) { return host.rank >= 0; });
  total.hosts.plan(others - host_of.begin(), {others, host_of.end()}, device);
  members.plan(n_centres, remote_members, device);
  group_src = at::tensor(numbers, at::kLong).to(device);
  group = group_src.narrow(0, 0, n_centres);
}

void Groups::check_size(int64_t max_group, double row_bytes, double pair_bytes) const
{
  if (largest <= max_group) return;
  int64_t here = 0, id = 0;
  for (const auto &share : shares)
    if (share.size == largest) here = std::max(here, share.id);
  MPI_Allreduce(&here, &id, 1, MPI_INT64_T, MPI_MAX, world);
  const auto n = static_cast<double>(largest);
  error->all(
      FLERR,
      "so3k: {} has {} atoms, more than max_group = {}: attention in it takes {:.1e} pairs "
      "per layer and {:.1g} GiB on each rank that owns some of its atoms; raise max_group if that "
      "is intended, give each molecule its id, or use a model with nonlocal: efa",
      called(id), largest, max_group, n * (n - 1.0), n * (row_bytes + pair_bytes) / 1073741824.0);
}

/// Centres with a bond, here perhaps between images, whose ends lie apart in unwrapped coordinates.
Tensor Groups::split_bonds(const System &system, const Tensor &r) const
{
  std::vector<int64_t> ids;
  for (const int i : system.centres.atoms) ids.push_back(atom->molecule[i]);
  const auto &near = system.near.exchange;
  const auto id = near.forward(at::tensor(ids, at::kLong).to(device).unsqueeze(1)).squeeze(1);
  const auto position = near.forward(r);
  const auto radii = at::tensor(at::ArrayRef<double>(COVALENT_RADII), at::kDouble).to(device);
  const auto radius = radii.index_select(0, system.near.species);
  const auto &[vectors, idx_i, idx_j, atom_i, atom_j] = system.near.pairs;

  const auto length = vectors.norm(2, 1);
  const auto longest = BOND * (radius.index_select(0, idx_i) + radius.index_select(0, idx_j));
  const auto id_i = id.index_select(0, idx_i);
  const auto bonded = (id_i == id.index_select(0, idx_j)) & (id_i != 0) & (length < longest);
  const auto unwrapped = position.index_select(0, idx_j) - position.index_select(0, idx_i);
  const auto apart = (unwrapped - vectors).norm(2, 1) > SPLIT;
  return idx_i.index_select(0, (bonded & apart).nonzero().squeeze(1)).cpu();
}

void Groups::check_whole(const System &system, const Tensor &r) const
{
  const auto rows = split_bonds(system, r);
  constexpr int64_t NONE = std::numeric_limits<int64_t>::max();
  int64_t here[2] = {NONE, NONE}, found[2];    // tag, molecule
  for (int64_t k = 0; k < rows.size(0); ++k) {
    const auto i = system.centres.atoms[rows[k].item<int64_t>()];
    if (atom->tag[i] < here[0]) here[0] = atom->tag[i];
  }
  MPI_Allreduce(&here[0], &found[0], 1, MPI_INT64_T, MPI_MIN, world);
  if (found[0] == NONE) return;
  for (const int i : system.centres.atoms)
    if (atom->tag[i] == found[0]) here[1] = atom->molecule[i];
  MPI_Allreduce(&here[1], &found[1], 1, MPI_INT64_T, MPI_MIN, world);
  error->all(
      FLERR,
      "so3k: molecule {} is not whole: by their image flags atom {} and an atom bonded to it are "
      "in different images: correct the flags in the data file, or give coordinates of whole "
      "molecules, which read_data wraps into the box",
      found[1], found[0]);
}

int64_t Groups::unnumbered(const System &system) const
{
  const auto n_rows = system.near.species.size(0);
  auto radii = at::empty({static_cast<int64_t>(SYMBOLS.size())}, at::kDouble);
  for (size_t z = 0; z < SYMBOLS.size(); ++z) radii[z] = bond_radius(z);
  const auto radius = radii.to(device).index_select(0, system.near.species);
  const auto &[vectors, idx_i, idx_j, atom_i, atom_j] = system.near.pairs;
  const auto first = radius.index_select(0, idx_i), second = radius.index_select(0, idx_j);
  const auto bonded = (first > 0) & (second > 0) & (vectors.norm(2, 1) < first + second);
  const auto n_bonds =
      at::zeros({n_rows}, at::kLong).to(device).index_add_(0, idx_i, bonded.to(at::kLong));
  const auto on_host = n_bonds.cpu();
  const auto bonds = on_host.accessor<int64_t, 1>();
  int64_t count = 0;
  for (int64_t row = 0; row < system.n_centres; ++row)
    count += atom->molecule[system.centres.atoms[row]] == 0 && bonds[row] > 0;
  MPI_Allreduce(MPI_IN_PLACE, &count, 1, MPI_INT64_T, MPI_SUM, world);
  return count;
}

std::string Groups::called(int64_t id) const
{
  return by_molecule ? "molecule " + std::to_string(id) : "the group of all atoms";
}

std::string Groups::name(int64_t number) const
{
  return called(shares[number].id);
}

}    // namespace So3k
