/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#include "system.h"

#include <algorithm>
#include <cmath>

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "pair.h"

using at::Tensor;
using LAMMPS_NS::NeighList;
using LAMMPS_NS::Pair;

namespace So3k {

void System::find_centres(Pair *pair, const NeighList *list,
                          const std::vector<int64_t> &species_of_type)
{
  centres.locations.assign(atom->nlocal + atom->nghost, Location());
  centres.atoms.clear();
  for (int ii = 0; ii < list->inum; ++ii) {
    const int i = list->ilist[ii];
    if (species_of_type[atom->type[i]] == 0) continue;
    centres.locations[i] = {comm->me, static_cast<int>(centres.atoms.size())};
    centres.atoms.push_back(i);
  }
  n_centres = static_cast<int64_t>(centres.atoms.size());
  rows = at::tensor(centres.atoms, at::kInt).to(device);
  comm->forward_comm(pair);
  ready = true;
}

int System::pack_locations(int n, const int *atoms, double *buffer) const
{
  int m = 0;
  for (int k = 0; k < n; ++k) {
    buffer[m++] = centres.locations[atoms[k]].rank;
    buffer[m++] = centres.locations[atoms[k]].row;
  }
  return m;
}

void System::unpack_locations(int n, int first, const double *buffer)
{
  for (int k = 0; k < n; ++k)
    centres.locations[first + k] = {static_cast<int>(buffer[2 * k]),
                                    static_cast<int>(buffer[2 * k + 1])};
}

void System::rebuild(PairList &pairs, const NeighList *list, double cutoff, bool once)
{
  pairs.rebuild(list, hidden_neighbors(once), centres, atom->x, cutoff + neighbor->skin, comm->me);
}

/// LAMMPS leaves bonded neighbors of weight zero out of all lists, if they are the nearest image.
/// The model does not use bonds and needs these neighbors; other styles continue without them.
std::vector<std::vector<int>> System::hidden_neighbors(bool once) const
{
  const auto *flag = neighbor->special_flag;
  if (atom->molecular != LAMMPS_NS::Atom::MOLECULAR || (flag[1] && flag[2] && flag[3])) return {};
  std::vector<std::vector<int>> found(centres.atoms.size());
  auto *const *x = atom->x;
  for (size_t row = 0; row < centres.atoms.size(); ++row) {
    const int i = centres.atoms[row];
    for (int distance = 1, k = 0; distance <= 3; ++distance)
      for (; k < atom->nspecial[i][distance - 1]; ++k) {
        const auto partner = atom->special[i][k];
        if (flag[distance] || (once && partner < atom->tag[i])) continue;
        for (int j = atom->map(partner); j >= 0; j = atom->sametag[j])
          if (!domain->minimum_image_check(x[i][0] - x[j][0], x[i][1] - x[j][1], x[i][2] - x[j][2]))
            found[row].push_back(j);
      }
  }
  return found;
}

void System::update()
{
  const int n_atoms = atom->nlocal + atom->nghost;
  const auto here = n_atoms ? at::from_blob(atom->x[0], {n_atoms, 3}, at::kDouble)
                            : at::empty({0, 3}, at::kDouble);
  // A pair with NaN would be skipped as if it were beyond the cutoff.
  if (!std::isfinite(here.sum().item<double>()))
    throw std::runtime_error("positions are not finite: minimise first, or use a smaller timestep");
  x = here.to(device);
  const auto *h = domain->h;
  if (!lattice.defined() || !std::equal(shape.begin(), shape.end(), h)) {
    std::copy_n(h, shape.size(), shape.begin());
    lattice = at::tensor({h[0], 0.0, 0.0, h[5], h[1], 0.0, h[4], h[3], h[2]}, at::kDouble)
                  .view({3, 3})
                  .to(device);
  }
}

void System::update(PairList &pairs, double cutoff,
                    const std::vector<int64_t> &species_of_type) const
{
  pairs.refresh(atom->type, species_of_type);
  pairs.update(x, cutoff);
}

double System::bytes() const
{
  const auto locations = static_cast<double>(centres.locations.capacity()) * sizeof(Location);
  return near.bytes() + long_pairs.bytes() + locations +
      (x.defined() ? static_cast<double>(x.nbytes()) : 0);
}

Tensor System::positions() const
{
  return x.index_select(0, rows);
}

/// Like Domain::unmap, whose symbol depends on the sizes of integers. Without this symbol a LAMMPS
/// with other sizes can load the plugin, which then reports the difference.
Tensor System::unwrapped_on_host() const
{
  auto r = at::empty({n_centres, 3}, at::kDouble);
  auto *row = r.data_ptr<double>();
  const auto *h = domain->h;
  for (const int i : centres.atoms) {
    const auto image = atom->image[i];
    const int a = static_cast<int>(image & IMGMASK) - IMGMAX;
    const int b = static_cast<int>((image >> IMGBITS) & IMGMASK) - IMGMAX;
    const int c = static_cast<int>(image >> IMG2BITS) - IMGMAX;
    row[0] = atom->x[i][0] + h[0] * a + h[5] * b + h[4] * c;
    row[1] = atom->x[i][1] + h[1] * b + h[3] * c;
    row[2] = atom->x[i][2] + h[2] * c;
    row += 3;
  }
  return r;
}

}    // namespace So3k
