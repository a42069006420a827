/* so3k-md: neighbor lists that a GPU renews by itself. MIT. */

#include "lists.h"

#include "../cpu/differentiable.h"
#include "../cpu/operators.h"
#include "program.h"
#include "tensors.h"

#include <algorithm>

using at::Tensor;

namespace So3k {
namespace {

  constexpr int64_t THREADS = 128, SCANNERS = 1024, WARPS = 4;    // of device/lists.cu
  // without a boundary the cells of an atom's neighbors, five along each axis, must be different
  // ones
  constexpr int64_t FEWEST_CELLS = 125;
  constexpr int64_t ATOMS_OF_CELL = 4;    // at least, on average

  int64_t blocks(int64_t count, int64_t of_block)
  {
    return (count + of_block - 1) / of_block;
  }

  void check(const Tensor &tensor, at::ScalarType type, at::IntArrayRef sizes, const char *name)
  {
    TORCH_CHECK(tensor.scalar_type() == type && tensor.sizes() == sizes && tensor.is_contiguous(),
                "[so3k] neighbor_lists: ", name, " is ", tensor.scalar_type(), tensor.sizes(),
                ", not contiguous ", type, sizes);
  }

  void run(const NeighborLists &lists, c10::Device device)
  {
    const auto each = [&](const char *kernel, int64_t count, int64_t of_block, int64_t threads) {
      launch({"lists.cu", {}}, kernel, device, blocks(count, of_block), static_cast<int>(threads),
             &lists);
    };
    const auto numbers = [&](const char *kernel, int64_t count) {
      each(kernel, count, THREADS, THREADS);
    };
    numbers("lists_place", std::max<int64_t>({lists.atoms, lists.cells + 1, 9}));
    numbers("lists_bin", lists.atoms);
    each("lists_cells", 1, 1, SCANNERS);
    numbers("lists_sort", lists.atoms);
    numbers("lists_order", lists.cells);
    each("lists_search", lists.atoms, WARPS, 32 * WARPS);
    each("lists_count", lists.atoms, WARPS, 32 * WARPS);
    each("lists_first", 1, 1, SCANNERS);
    each("lists_near", lists.atoms, WARPS, 32 * WARPS);
  }

  using Results = std::tuple<Tensor, Tensor, Tensor, Tensor>;

  /// Positions in the images of the lists with the cell, and the near pairs: vectors and atoms.
  Results made(const Tensor &positions, int64_t pairs)
  {
    const auto whole = positions.options().dtype(at::kLong);
    return {at::empty({positions.size(0) + 3, 3}, positions.options()),
            at::empty({pairs, 3}, positions.options()), at::empty({pairs}, whole),
            at::empty({pairs}, whole)};
  }

  Results shapes(const Tensor &positions, const Tensor &, bool, double, double, double,
                 int64_t pairs, Tensor &, Tensor &, Tensor &, Tensor &, Tensor &)
  {
    return made(positions, pairs);
  }

  Results neighbor_lists(const Tensor &positions, const Tensor &cell, bool periodic, double near,
                         double far, double skin, int64_t pairs, Tensor &state, Tensor &listed,
                         Tensor &length, Tensor &close, Tensor &rows)
  {
    const auto n = positions.size(0);
    const auto r = positions.contiguous(), lattice = cell.contiguous();
    check(r, at::kDouble, {n, 3}, "positions"), check(lattice, at::kDouble, {3, 3}, "cell");
    check(state, at::kInt, {LIST_STATES}, "state"),
        check(listed, at::kDouble, {n + 3, 3}, "listed");
    check(length, at::kInt, {n}, "length"), check(close, at::kInt, {n}, "close");
    check(rows, at::kLong, {n, rows.size(-1)}, "rows");
    const auto found = made(r, pairs);
    const auto &[places, vectors, idx_i, idx_j] = found;
    const auto longs = [](const Tensor &of) {
      return reinterpret_cast<long long *>(of.data_ptr<int64_t>());
    };
    NeighborLists lists{};
    lists.atoms = n, lists.width = rows.size(1), lists.pairs = pairs;
    lists.cells = std::max(FEWEST_CELLS, n / ATOMS_OF_CELL);
    const auto begins = at::empty({lists.cells + 1}, state.options()),
               order = at::empty({n}, state.options()), now = at::empty({n}, state.options()),
               first = at::empty({n + 1}, rows.options());
    lists.periodic = periodic, lists.near = near, lists.far = far, lists.skin = skin;
    lists.positions = r.const_data_ptr<double>(), lists.cell = lattice.const_data_ptr<double>();
    lists.state = state.data_ptr<int>(), lists.listed = listed.data_ptr<double>();
    lists.begins = begins.data_ptr<int>(), lists.order = order.data_ptr<int>();
    lists.length = length.data_ptr<int>(), lists.close = close.data_ptr<int>();
    lists.rows = longs(rows), lists.now = now.data_ptr<int>(), lists.first = longs(first);
    lists.places = places.data_ptr<double>(), lists.vectors = vectors.data_ptr<double>();
    lists.i = longs(idx_i), lists.j = longs(idx_j);
    run(lists, r.device());
    return found;
  }

  void refuse(const c10::OperatorHandle &, torch::jit::Stack *)
  {
    TORCH_CHECK(false,
                "[so3k] this System was made with kernels for GPUs and runs on a CPU: make "
                "it again with device = cpu, or with kernels = off");
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  library.def(So3k::operators::NEIGHBOR_LISTS);
  library.impl("neighbor_lists", torch::dispatch(c10::DispatchKey::Meta, So3k::shapes));
  So3k::implement<&So3k::refuse>(library, "neighbor_lists", c10::DispatchKey::CPU);
  for (const auto device : {c10::DispatchKey::CUDA, c10::DispatchKey::PrivateUse1})
    library.impl("neighbor_lists", torch::dispatch(device, So3k::neighbor_lists));
}
