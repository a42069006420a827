/* so3k-md: pair_style so3k, the recursion over the layers. GPL-2, see ../LICENSE. */

#include "layers.h"

using at::Tensor;

namespace So3k {

Tensor last_features(const Model &model, const PairList &near, const Tensor &shares,
                     int64_t n_centres, const Nonlocal *nonlocal)
{
  const auto &pairs = near.pairs;
  const auto n_rows = near.species.size(0);
  const auto &first = model.representation;
  const auto edges = first.run("edges", pairs.vectors, pairs.idx_i, pairs.idx_j);
  // The features of remote atoms before the first layer follow from their species: nothing to send.
  auto x_src = first.run("embed", near.species, shares).toTensor();
  auto x = x_src.narrow(0, 0, n_centres);
  auto chi = first.run("initial_chi", edges, n_centres).toTensor();
  auto chi_src = chi.new_zeros({n_rows, model.chi_width});
  for (int64_t k = 0; k < model.n_layers; ++k) {
    const auto &layer = model.layers[k];
    std::vector<Parcel> parcels;
    if (k > 0) parcels.push_back({&near.exchange, at::cat({x, chi}, 1)});
    if (k == 0 && model.chi_from_neighbors) parcels.push_back({&near.exchange, chi});
    const auto n_near = parcels.size();
    if (nonlocal)
      for (auto &parcel : nonlocal->outgoing(layer, x, chi)) parcels.push_back(parcel);
    const auto arrived = deliver(parcels);
    if (k > 0) std::tie(x_src, chi_src) = model.split(arrived[0]);
    if (k == 0 && model.chi_from_neighbors) chi_src = arrived[0];
    const auto centres = model.rows(x, chi);
    auto [dx, dchi] = two(layer.run("attend", centres, model.rows(x_src, chi_src), edges));
    if (nonlocal) nonlocal->add(layer, at::TensorList(arrived).slice(n_near), dx, dchi);
    std::tie(x, chi) = two(layer.run("update", centres, dx, dchi));
  }
  return x;
}

}    // namespace So3k
