/* so3k-md: pair_style so3k, Euclidean fast attention. GPL-2, see ../LICENSE. */

#include "efa.h"

#include "system.h"

#include <algorithm>
#include <numeric>

using at::Tensor;

namespace So3k {

namespace {

  constexpr int64_t SMALL = 256;    // atoms of the largest group that is computed by pairs
  constexpr int64_t TILE = 256;     // atoms computed at once

}    // namespace

void Efa::connect(const System &system)
{
  groups.find(system.centres.atoms, SMALL);
  groups.connect();
  by_group = at::argsort(groups.group_src, /*stable=*/true);
  places = at::argsort(by_group).narrow(0, 0, system.n_centres);
  const auto number = groups.group_src.index_select(0, by_group);
  const auto counts = at::bincount(number, {}, groups.n_groups).cpu();
  const auto *count = counts.data_ptr<int64_t>();

  const auto n_groups = groups.n_groups;
  const auto &sizes = groups.sizes;
  n_large = std::count_if(sizes.begin(), sizes.end(), [](int64_t size) { return size > SMALL; });
  n_summed = 0;
  tiles.clear();
  tile_sizes.clear();
  for (int64_t first = 0, last = 0, done = 0; first < n_groups; first = last) {
    int64_t n_atoms = count[last++];
    if (first >= n_large)
      while (last < n_groups && n_atoms + count[last] <= TILE) n_atoms += count[last++];
    add_tiles(first, last, number.narrow(0, done, n_atoms));
    done += n_atoms;
    if (first < n_large) n_summed = tiles.size();
  }
}

/// Tiles of the groups from first to last - 1; `number` is the group of each of their atoms.
void Efa::add_tiles(int64_t first, int64_t last, const Tensor &number)
{
  for (const auto &piece : number.split(TILE)) {
    tiles.push_back({piece - first, last - first, first < n_large ? first : -1});
    tile_sizes.push_back(piece.size(0));
  }
}

std::string Efa::describe_exchange(const System &system) const
{
  const auto no_groups = groups.group.narrow(0, 0, 0);
  const auto no_positions = at::zeros({0, 3}, at::dtype(at::kDouble).device(model.device));
  const auto rows =
      at::zeros({0, model.features + model.chi_width}, no_positions.options().dtype(model.dtype));
  const auto no_waves =
      model.reach.run("waves", no_positions, system.cell().unsqueeze(0), no_groups).toTensor();
  const auto width = sums(model.layers.at(0), {no_groups, 1, 0}, {rows, no_waves}).size(1);
  const auto gathered = most(groups.members.n_remote()), summed = most(groups.n_summed);
  const auto bytes = static_cast<double>(gathered) * row_bytes() +
      static_cast<double>(summed * width * model.n_layers) * model.element_size();
  return fmt::format("a rank gathers up to {} rows and {} sums of other ranks, {:.2g} MiB",
                     gathered, summed, bytes / 1048576.0);
}

void Efa::update(const System &system)
{
  Nonlocal::update(system);
  check_reach();
  lattice = system.cell().unsqueeze(0).requires_grad_();
  const auto cell_of = at::zeros_like(groups.group_src);
  waves = by_tile(model.reach.run("waves", r_src, lattice, cell_of).toTensor(), tiles.size());
}

/// Every rank that shares a group finds the same.
void Efa::check_reach() const
{
  if (model.max_group_diameter <= 0.0 || groups.n_groups == 0) return;
  auto support =
      model.reach.run("support", r_src.detach(), groups.group_src, groups.n_groups).toTensor();
  if (groups.total.busy()) support = groups.total.largest(support);
  const auto widths = model.reach.run("diameter", support).toTensor();
  const auto widest = widths.argmax().item<int64_t>();
  const auto width = widths[widest].item<double>();
  if (width > model.max_group_diameter)
    throw std::runtime_error(fmt::format(
        "{} is {:.4g} A wide, more than efa_reach = {:.4g} A of the model: use smaller groups, "
        "or a model with a larger efa_reach",
        groups.name(widest), width, model.max_group_diameter));
}

/// Rows of sources as rows of the first tiles. Large groups need no gathered rows.
std::vector<Tensor> Efa::by_tile(const Tensor &rows, size_t n_tiles) const
{
  const at::IntArrayRef wanted(tile_sizes.data(), n_tiles);
  const auto n_atoms = std::accumulate(wanted.begin(), wanted.end(), int64_t(0));
  return rows.index_select(0, by_group.narrow(0, 0, n_atoms)).split_with_sizes(wanted);
}

/// A single tile is kept for the gradient, because this needs no more memory.
Tensor Efa::evaluate(const Formula &f, const std::vector<Tensor> &inputs) const
{
  return tiles.size() == 1 ? f(inputs) : recomputed(f, inputs);
}

/// Waves with the signs of their weights.
Tensor Efa::signed_waves(const Tensor &waves) const
{
  return model.reach.run("signed", waves).toTensor();
}

/// Of inputs (rows, waves).
Tensor Efa::sums(const Part &layer, const Tile &tile, const std::vector<Tensor> &inputs) const
{
  const auto [x, chi] = model.split(inputs[0]);
  return layer["efa"].run("sums", x, chi, inputs[1], tile.group, tile.n_groups).toTensor();
}

/// Of inputs (rows, waves, sums).
Tensor Efa::read(const Part &layer, const Tile &tile, const std::vector<Tensor> &inputs) const
{
  const auto [x, chi] = model.split(inputs[0]);
  const auto [dx, dchi] =
      two(layer["efa"].run("read", x, chi, signed_waves(inputs[1]), tile.group, inputs[2]));
  return at::cat({dx, dchi}, 1);
}

/// Of inputs (rows, waves), all atoms of the groups of a tile being there.
Tensor Efa::whole(const Part &layer, const Tile &tile, const std::vector<Tensor> &inputs) const
{
  const auto [x, chi] = model.split(inputs[0]);
  const auto [dx, dchi] = two(layer["efa"].run("forward", x, chi, inputs[1],
                                               signed_waves(inputs[1]), tile.group, tile.n_groups));
  return at::cat({dx, dchi}, 1);
}

/// The rows of gathered members, and the sums of large groups over this rank's atoms.
std::vector<Parcel> Efa::outgoing(const Part &layer, const Tensor &x, const Tensor &chi) const
{
  const auto own = at::cat({x, chi}, 1);
  std::vector<Parcel> parcels = {{&groups.members, own}};
  if (n_large == 0) return parcels;
  const auto rows = by_tile(own, n_summed);
  std::vector<Tensor> sums_of_groups(n_large);
  for (size_t t = 0; t < n_summed; ++t) {
    const auto &tile = tiles[t];
    const Formula f = [this, &layer, &tile](const auto &inputs) {
      return sums(layer, tile, inputs);
    };
    const auto part = evaluate(f, {rows[t], waves[t]});
    auto &sum = sums_of_groups[tile.summed];
    sum = sum.defined() ? sum + part : part;
  }
  parcels.push_back({&groups.total, at::cat(sums_of_groups)});
  return parcels;
}

void Efa::add(const Part &layer, at::TensorList arrived, Tensor &dx, Tensor &dchi) const
{
  if (tiles.empty()) return;
  const auto rows = by_tile(arrived[0], tiles.size());
  std::vector<Tensor> sums_of_groups, messages;
  if (n_large > 0) sums_of_groups = arrived[1].split(1);
  for (size_t t = 0; t < tiles.size(); ++t) {
    const auto &tile = tiles[t];
    if (tile.summed >= 0) {
      const Formula f = [this, &layer, &tile](const auto &inputs) {
        return read(layer, tile, inputs);
      };
      messages.push_back(evaluate(f, {rows[t], waves[t], sums_of_groups[tile.summed]}));
    } else {
      const Formula f = [this, &layer, &tile](const auto &inputs) {
        return whole(layer, tile, inputs);
      };
      messages.push_back(evaluate(f, {rows[t], waves[t]}));
    }
  }
  const auto [of_x, of_chi] = model.split(at::cat(messages).index_select(0, places));
  dx = dx + of_x;
  dchi = dchi + of_chi;
}

}    // namespace So3k
