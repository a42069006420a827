/* so3k-md: pair_style so3k, attention in SPHC space. GPL-2, see ../LICENSE. */

#include "sphc.h"

#include "recompute.h"
#include "system.h"

#include <limits>

using at::Tensor;

namespace So3k {

void Sphc::connect(const System &system)
{
  groups.find(system.centres.atoms, std::numeric_limits<int64_t>::max());
  // of each pair the filter, query, key and their products
  groups.check_size(options.max_group, row_bytes(), 8.0 * model.features * model.element_size());
  groups.connect();
  const auto own = at::arange(system.n_centres, groups.group.options());
  rows = model.reach.run("group_rows", groups.group, groups.group_src, own);
  tiles = model.layers.at(0).run("tiles", rows).toIntVector();
}

std::string Sphc::describe_exchange(const System & /*system*/) const
{
  const auto gathered = most(groups.members.n_remote());
  return fmt::format("a rank gathers up to {} rows of other ranks, {:.2g} MiB", gathered,
                     static_cast<double>(gathered) * row_bytes() / 1048576.0);
}

std::vector<Parcel> Sphc::outgoing(const Part & /*layer*/, const Tensor &x, const Tensor &chi) const
{
  return {{&groups.members, at::cat({x, chi}, 1)}};
}

void Sphc::add(const Part &layer, at::TensorList arrived, Tensor & /*dx*/, Tensor &dchi) const
{
  const auto n_centres = dchi.size(0);
  std::vector<Tensor> messages;
  for (size_t tile = 0; tile + 1 < tiles.size(); ++tile) {
    const auto first = tiles[tile], last = tiles[tile + 1];
    const Formula attend = [=](const std::vector<Tensor> &inputs) {
      const auto [x, chi] = model.split(inputs[0]);
      const auto &r = inputs[1];
      const auto own = [=](const Tensor &sources) { return sources.narrow(0, 0, n_centres); };
      const auto centres = model.rows(own(x), own(chi), own(r)), sources = model.rows(x, chi, r);
      return layer.run("sphc_attend", centres, sources, rows, first, last).toTensor();
    };
    const std::vector<Tensor> inputs = {arrived[0], r_src};
    messages.push_back(tiles.size() == 2 ? attend(inputs) : recomputed(attend, inputs));
  }
  if (!messages.empty()) dchi = dchi + at::cat(messages);
}

}    // namespace So3k
