/* so3k-md: neighbor lists on the device. MIT.
 *
 * The kernels run in the order in which they stand here. `lists_place` decides whether the rows
 * have to be made anew; if not, the kernels up to `lists_search` return at once, so that the host
 * decides nothing. The last three take the pairs that are near now from the rows. */

#include "grid.h"
#include "warp.h"

namespace So3k {

constexpr int THREADS = 128;      // of a block
constexpr int SCANNERS = 1024;    // threads of the block that adds up

inline __device__ long long thread()
{
  return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
}

/// Whether each pair within the cutoffs is listed, as far as this atom can tell: a pair now at
/// r_ij was listed at (r_ij - u_j + u_i) A⁻¹, A the map of the cell and u the other displacements.
inline __device__ bool covered(const NeighborLists &of, const double *place, const double *listed)
{
  const double *inverse = of.listed + 3 * of.atoms;
  double strain = 0, moved = 0;
  for (int x = 0; x < 3; ++x) {
    double was = 0;
    for (int a = 0; a < 3; ++a) {
      double element = a == x ? -1.0 : 0.0;
      for (int b = 0; b < 3; ++b) element += inverse[3 * a + b] * of.cell[3 * b + x];
      strain += element * element;
      was += listed[a] * of.cell[3 * a + x];
    }
    moved += (place[x] - was) * (place[x] - was);
  }
  const double shrunk = 1 - sqrt(strain), farther = 2 * sqrt(moved);
  // false for what is not a number
  return of.near + farther <= (of.near + of.skin) * shrunk &&
      of.far + farther <= (of.far + of.skin) * shrunk;
}

/// Puts a position into the image of the lists: `listed` are fractional coordinates there.
inline __device__ void put(const NeighborLists &of, const Inverse &inverse, const double *r,
                           const double *listed, double *place)
{
  for (int x = 0; x < 3; ++x) place[x] = r[x];
  if (!of.periodic) return;
  for (int a = 0; a < 3; ++a) {
    const double jumps = rint(inverse.along(r, a) - listed[a]);
    for (int x = 0; x < 3; ++x) place[x] -= jumps * of.cell[3 * a + x];
  }
}

/// Whether an entry of a row is within the cutoff now, and its vector.
inline __device__ bool near_entry(const NeighborLists &of, long long i, int k, double (&d)[3])
{
  if (k >= of.close[i] || k >= of.width) return false;
  const Entry entry(of.rows[i * of.width + k]);
  between(of.places + 3 * i, of.places + 3 * entry.source, entry.image, of.cell, d);
  return square_of(d) <= of.near * of.near;
}

/// Sums of numbers up to and with each of them, in one block; returns the total.
///
/// sums: shared by the block, one for each warp.
template <typename Number, typename Get, typename Set>
__device__ Number running(long long count, Number *sums, const Get &get, const Set &set)
{
  const Lane me;
  Number before = 0;
  for (long long start = 0; start < count; start += SCANNERS) {
    const auto at = start + threadIdx.x;
    Number sum = at < count ? get(at) : 0;
    for (int step = 1; step < 32; step *= 2) {
      const Number other = __shfl_sync(ALL, sum, me.lane >= step ? me.lane - step : me.lane);
      if (me.lane >= step) sum += other;
    }
    if (me.lane == 31) sums[me.warp] = sum;
    __syncthreads();
    Number total = 0;
    for (int w = 0; w < SCANNERS / 32; ++w) {
      if (w == me.warp) sum += before + total;
      total += sums[w];
    }
    if (at < count) set(at, sum);
    before += total;
    __syncthreads();
  }
  return before;
}

}    // namespace So3k

extern "C" __global__ void __launch_bounds__(So3k::THREADS)
    lists_place(const So3k::NeighborLists of)
{
  using namespace So3k;
  const auto at = thread();
  if (at <= of.cells) of.begins[at] = 0;
  if (at < 9) of.places[3 * of.atoms + at] = of.cell[at];
  if (at >= of.atoms) return;
  const double *listed = of.listed + 3 * at;
  double *place = of.places + 3 * at;
  put(of, Inverse(of.cell), of.positions + 3 * at, listed, place);
  if (!covered(of, place, listed)) of.state[RENEW] = 1;
}

extern "C" __global__ void __launch_bounds__(So3k::THREADS) lists_bin(const So3k::NeighborLists of)
{
  using namespace So3k;
  const auto at = thread();
  if (!of.state[RENEW] || at >= of.atoms) return;
  const Grid grid(of);
  const double *r = of.positions + 3 * at;
  double *listed = of.listed + 3 * at, *place = of.places + 3 * at;
  for (int a = 0; a < 3; ++a) {
    listed[a] = grid.inverse.along(r, a);
    if (of.periodic) listed[a] -= floor(listed[a]);
  }
  put(of, grid.inverse, r, listed, place);
  atomicAdd(of.begins + grid.cell_of(place), 1);
  if (at > 0) return;
  for (int k = 0; k < 9; ++k) of.listed[3 * of.atoms + k] = grid.inverse.m[k];
  of.state[LONGEST] = grid.too_thin() ? TOO_THIN : 0;
}

/// The end of each cell among the sorted atoms.
extern "C" __global__ void __launch_bounds__(So3k::SCANNERS)
    lists_cells(const So3k::NeighborLists of)
{
  using namespace So3k;
  __shared__ int sums[SCANNERS / 32];
  if (!of.state[RENEW]) return;
  running(
      of.cells + 1, sums, [&](long long cell) { return of.begins[cell]; },
      [&](long long cell, int sum) { of.begins[cell] = sum; });
}

/// Sorts atoms by cells; the ends become the beginnings.
extern "C" __global__ void __launch_bounds__(So3k::THREADS) lists_sort(const So3k::NeighborLists of)
{
  using namespace So3k;
  const auto at = thread();
  if (!of.state[RENEW] || at >= of.atoms) return;
  const int cell = Grid(of).cell_of(of.places + 3 * at);
  of.order[atomicAdd(of.begins + cell, -1) - 1] = static_cast<int>(at);
}

/// Orders the few atoms of each cell, so that lists do not depend on the order of the threads.
extern "C" __global__ void __launch_bounds__(So3k::THREADS)
    lists_order(const So3k::NeighborLists of)
{
  using namespace So3k;
  const auto cell = thread();
  if (!of.state[RENEW] || cell >= of.cells) return;
  const int begin = of.begins[cell], end = of.begins[cell + 1];
  for (int k = begin + 1; k < end; ++k) {
    const int atom = of.order[k];
    int to = k;
    for (; to > begin && of.order[to - 1] > atom; --to) of.order[to] = of.order[to - 1];
    of.order[to] = atom;
  }
}

/// A warp for each centre, a lane for each atom of a cell around it; first for the near entries.
extern "C" __global__ void __launch_bounds__(32 * So3k::WARPS)
    lists_search(const So3k::NeighborLists of)
{
  using namespace So3k;
  const Lane me;
  const auto i = centre_of(me);
  if (!of.state[RENEW] || i >= of.atoms) return;
  const Grid grid(of);
  const double *r_i = of.places + 3 * i;
  const int home[3] = {grid.place(r_i, 0), grid.place(r_i, 1), grid.place(r_i, 2)};
  const double near = (of.near + of.skin) * (of.near + of.skin),
               far = (of.far + of.skin) * (of.far + of.skin);
  int length = 0;
  const auto sweep = [&](double above, double most) {
    for (int k = 0; k < grid.count(); ++k) {
      const Site site = grid.around(home, k);
      const int end = of.begins[site.cell + 1];
      for (int start = of.begins[site.cell]; start < end; start += 32) {
        double d[3], square = 2 * far;
        int j = 0;
        if (start + me.lane < end) {
          j = of.order[start + me.lane];
          between(r_i, of.places + 3 * j, site.image, of.cell, d);
          if (j != i || site.image.packed != 0) square = square_of(d);
        }
        const bool found = square > above && square <= most;
        const unsigned all = __ballot_sync(ALL, found);
        const int at = length + me.before(all);
        if (found && at < of.width) of.rows[i * of.width + at] = Entry(j, site.image).packed();
        length += __popc(all);
      }
    }
  };
  sweep(-1, near);
  if (me.lane == 0) of.close[i] = length;
  if (far > near) sweep(near, far);
  if (me.lane == 0) of.length[i] = length;
}

/// Number of the pairs of each centre that are near now.
extern "C" __global__ void __launch_bounds__(32 * So3k::WARPS)
    lists_count(const So3k::NeighborLists of)
{
  using namespace So3k;
  const Lane me;
  const auto i = centre_of(me);
  if (i >= of.atoms) return;
  int count = 0;
  for (int start = 0; start < of.close[i] && start < of.width; start += 32) {
    double d[3];
    count += __popc(__ballot_sync(ALL, near_entry(of, i, start + me.lane, d)));
  }
  if (me.lane == 0) of.now[i] = count;
}

/// Where the near pairs of each centre begin. What is left of the room is shared out among the
/// centres, so that the number of pairs is always the same and none has much of what is empty.
extern "C" __global__ void __launch_bounds__(So3k::SCANNERS)
    lists_first(const So3k::NeighborLists of)
{
  using namespace So3k;
  __shared__ int longest_of[SCANNERS];
  __shared__ long long sums[SCANNERS / 32];
  const auto near = running(
      of.atoms, sums, [&](long long i) { return static_cast<long long>(of.now[i]); },
      [&](long long i, long long sum) { of.first[i + 1] = sum; });
  const auto spare = max(of.pairs - near, 0ll);
  int longest = of.state[LONGEST];
  for (long long i = threadIdx.x; i < of.atoms; i += SCANNERS) {
    of.first[i + 1] = min(of.first[i + 1] + spare * (i + 1) / of.atoms, of.pairs);
    longest = max(longest, of.length[i]);
  }
  longest_of[threadIdx.x] = longest;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int t = 0; t < SCANNERS; ++t) longest = max(longest, longest_of[t]);
  of.first[0] = 0;
  of.state[LONGEST] = longest;
  of.state[NEAR] = static_cast<int>(near);
  of.state[OVERFLOW] = longest > of.width || near > of.pairs;
  of.state[RENEWALS] += of.state[RENEW];
  of.state[RENEW] = 0;
}

/// The pairs that are near now. What is no pair is far beyond the cutoff.
extern "C" __global__ void __launch_bounds__(32 * So3k::WARPS)
    lists_near(const So3k::NeighborLists of)
{
  using namespace So3k;
  const Lane me;
  const auto i = centre_of(me);
  if (i >= of.atoms) return;
  const auto end = of.first[i + 1];
  auto next = of.first[i];
  const auto set = [&](long long p, long long j, const double (&d)[3]) {
    if (p >= end) return;
    of.i[p] = i;
    of.j[p] = j;
    for (int x = 0; x < 3; ++x) of.vectors[3 * p + x] = d[x];
  };
  for (int start = 0; start < of.close[i] && start < of.width; start += 32) {
    double d[3];
    const bool found = near_entry(of, i, start + me.lane, d);
    const unsigned all = __ballot_sync(ALL, found);
    if (found) set(next + me.before(all), Entry(of.rows[i * of.width + start + me.lane]).source, d);
    next += __popc(all);
  }
  const double beyond[3] = {2 * (of.near + of.skin), 0, 0};
  for (auto p = next + me.lane; p < end; p += 32) set(p, i, beyond);
}
