"""Verlet lists: pairs found with a skin, and kept while no pair within the cutoff can be missing.

The test is exact for any motion, any change of the cell, and atoms wrapped by lattice translations, so that
an engine may pass trial moves, unwrapped or wrapped positions, in any order.

vesin's own lists (`skin`) hold the same pairs in an order that depends on when they were made. On a walk of
648 atoms with changes of the cell and wrapping, 13 of the 15 steps compared differ in their last bits from a
new search. A restart, or a move that a barostat rejects, would then not give the same energy. Sorted into the
order used here, vesin's lists take 3.9 ms/step (cutoff 5 Å, skin 0.5 Å), and 1.7 ms in their own order; these
lists take 3.1 ms. Pairs to 12 Å, each once and not trimmed: 13 ms here, 12 ms with vesin.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from so3k_md.errors import So3kError
from so3k_md.reads import rows_worth

SKIN = 0.5  # Å; at 300 K a list lasts about 20 steps of 0.5 fs, also through a barostat's trial moves

LONG_SKIN = 2.0  # times SKIN for long-range pairs, whose search takes longest
LARGEST_SKIN = 20.0  # Å; the number of pairs grows with the cube of cutoff + skin


class Neighbors(NamedTuple):
    """The near and the long-range pairs of one structure; fields as in `Graph` and `LongRange`."""

    vectors: Tensor
    idx_i: Tensor
    idx_j: Tensor
    long_vectors: Tensor
    long_i: Tensor
    long_j: Tensor


def check_skin(skin: float) -> None:
    """Refuse impossible values of the skin of a neighbor list, Å.

    Raises:
        So3kError: it is negative, not a number, or above LARGEST_SKIN.
    """
    if not 0 <= skin <= LARGEST_SKIN:
        raise So3kError(f"skin = {skin} Å is impossible: give a length from 0 to {LARGEST_SKIN:g} Å")


class VerletList(nn.Module):
    """All ordered pairs within the cutoff and their vectors, from a list that is renewed when necessary.

    A = cell_list⁻¹ cell is the affine map of the cell since the list was made, and u = r − r_list A are the
    remaining displacements. A pair now at r_ij was listed at (r_ij − u_j + u_i) A⁻¹. Hence no pair is missing
    while (cutoff + 2 max |u|) ‖A⁻¹‖ ≤ cutoff + skin. With `trim` the result, including its order, does not
    depend on when the list was made; on a GPU nothing is trimmed.

    Args:
        search: (positions, cell, pbc, cutoff) -> idx_i, idx_j, shifts of each pair within the cutoff.
        cutoff: Å.
        skin: Å; 0 renews the list whenever anything moves.
        trim: leave out listed pairs that are now beyond the cutoff; False saves time if such pairs contribute
            nothing.
    """

    pbc: Tensor
    positions: Tensor
    cell: Tensor
    inverse: Tensor
    idx_i: Tensor
    idx_j: Tensor
    shifts: Tensor

    def __init__(
        self,
        search: Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor, Tensor]],
        cutoff: float,
        skin: float,
        trim: bool = True,
    ):
        super().__init__()
        self.search = search
        self.trim = trim
        self.cutoff = cutoff
        self.skin = skin
        self.builds = 0  # number of times the list was made
        self.crosses = False  # whether any pair crosses the boundary of the cell
        self.register_buffer("pbc", torch.zeros(3, dtype=torch.bool))
        self.register_buffer("positions", torch.zeros((0, 3), dtype=torch.float64))
        self.register_buffer("cell", torch.eye(3, dtype=torch.float64))
        self.register_buffer("inverse", torch.eye(3, dtype=torch.float64))
        self.register_buffer("idx_i", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("idx_j", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("shifts", torch.zeros((0, 3), dtype=torch.float64))

    def forward(
        self, positions: Tensor, cell: Tensor, pbc: Tensor, renew: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors r_j + shift · cell − r_i (pairs, 3), and idx_i and idx_j (pairs,). Do not change them.

        Args:
            positions: finite, in any image, (atoms, 3) float64, Å.
            cell: lattice vectors as rows, any that complete the basis for open axes, (3, 3) float64, Å.
            pbc: which axes are periodic, (3,) bool.
            renew: whether to look if the list must be renewed, for which the host reads; without that the
                result is right only if the list is not `outgrown`.
        """
        with torch.no_grad():
            if renew and not self.covers(positions, cell, pbc):
                self.build(positions, cell, pbc)
            vectors = positions.index_select(0, self.idx_j) - positions.index_select(0, self.idx_i)
            if self.crosses:
                vectors += self.shifts @ cell
            if not self.trim:
                return vectors, self.idx_i, self.idx_j
            within = rows_worth(torch.linalg.vector_norm(vectors, dim=1) <= self.cutoff)
            return (
                vectors.index_select(0, within),
                self.idx_i.index_select(0, within),
                self.idx_j.index_select(0, within),
            )

    def covers(self, positions: Tensor, cell: Tensor, pbc: Tensor) -> bool:
        """Whether the list holds each pair within the cutoff; adapts it to atoms that changed their image."""
        if self.builds == 0 or positions.size(0) != self.positions.size(0) or not torch.equal(pbc, self.pbc):
            return False
        # the usual case: the cell is the same and atoms moved little
        if torch.equal(cell, self.cell):
            farthest = (positions - self.positions).square().sum(1).max()
            if bool(4.0 * farthest <= self.skin * self.skin):
                return True
        inverse = torch.linalg.inv_ex(cell)[0]
        jumps = torch.round(positions @ inverse - self.positions @ self.inverse) * pbc
        listed = self.positions + jumps @ self.cell
        moved = torch.linalg.vector_norm(positions - listed @ (self.inverse @ cell), dim=1).max()
        # the bound ‖A⁻¹‖₂ ≤ 1 + ‖A⁻¹ − 1‖_F needs no SVD
        stretch = 1.0 + torch.linalg.matrix_norm(inverse @ self.cell - torch.eye(3).to(cell))
        # values that are not finite compare false and renew the list
        if not bool((self.cutoff + 2.0 * moved) * stretch <= self.cutoff + self.skin):
            return False
        if bool(jumps.any()):
            moves = jumps.index_select(0, self.idx_i) - jumps.index_select(0, self.idx_j)
            self.shifts = self.shifts + moves
            self.crosses = bool(self.shifts.any())
            self.positions = listed
        return True

    @torch.jit.export
    def outgrown(self, positions: Tensor, cell: Tensor) -> Tensor:
        """Whether the list may miss a pair, () bool on the device: the test of `covers` without a read.

        It is also true after an atom changed its image. ‖A⁻¹‖ ≤ 1 / (1 − ‖A − 1‖_F) needs no inverse.
        """
        affine = self.inverse @ cell
        moved = torch.linalg.vector_norm(positions - self.positions @ affine, dim=1).max()
        strain = torch.linalg.matrix_norm(affine - torch.eye(3, dtype=cell.dtype, device=cell.device))
        # values that are not finite compare false
        return ~(self.cutoff + 2.0 * moved <= (self.cutoff + self.skin) * (1.0 - strain))

    def build(self, positions: Tensor, cell: Tensor, pbc: Tensor) -> None:
        """Search all pairs within cutoff + skin, in the order of (i, j, shift)."""
        idx_i, idx_j, shifts = self.search(positions, cell, pbc, self.cutoff + self.skin)
        order = canonical_order(idx_i, idx_j, shifts, positions.size(0))
        self.idx_i = idx_i.index_select(0, order)
        self.idx_j = idx_j.index_select(0, order)
        self.shifts = shifts.index_select(0, order).to(cell.dtype)
        self.crosses = bool(shifts.any())
        self.positions = positions.clone()
        self.cell = cell.clone()
        self.inverse = torch.linalg.inv(cell)
        self.pbc = pbc.clone()
        self.builds += 1


class KeptLists(nn.Module):
    """Near pairs and long-range pairs, from lists that the host renews.

    Args:
        near: pairs in both directions.
        long: each pair once; None for models without long-range physics.
    """

    def __init__(self, near: VerletList, long: VerletList | None):
        super().__init__()
        self.near = near
        self.long = long

    def forward(self, positions: Tensor, cell: Tensor, pbc: Tensor, renew: bool = True) -> Neighbors:
        """The pairs at these positions; arguments as of `VerletList`."""
        vectors, idx_i, idx_j = self.near(positions, cell, pbc, renew)
        if self.long is not None:
            long_vectors, long_i, long_j = self.long(positions, cell, pbc, renew)
            return Neighbors(vectors, idx_i, idx_j, long_vectors, long_i, long_j)
        return Neighbors(vectors, idx_i, idx_j, vectors[:0], idx_i[:0], idx_j[:0])

    @torch.jit.export
    def outgrown(self, positions: Tensor, cell: Tensor) -> Tensor:
        """Whether a list may miss a pair, () bool on the device."""
        stale = self.near.outgrown(positions, cell)
        if self.long is not None:
            stale = stale | self.long.outgrown(positions, cell)
        return stale

    @torch.jit.export
    def are_made(self) -> bool:
        """Whether there are lists."""
        return self.near.builds > 0


def canonical_order(idx_i: Tensor, idx_j: Tensor, shifts: Tensor, n_atoms: int) -> Tensor:
    """The order of pairs by (i, j, shift), so that sums have the same bits for any list of the same pairs.

    Args:
        idx_i: (pairs,).
        idx_j: (pairs,).
        shifts: (pairs, 3).
        n_atoms: number of atoms.
    """
    if idx_i.numel() == 0:
        return idx_i
    offsets = shifts.to(torch.int64) - shifts.to(torch.int64).amin(0)
    widths = offsets.amax(0) + 1
    key = idx_i * n_atoms + idx_j
    for axis in range(3):
        key = key * widths[axis] + offsets[:, axis]
    return torch.argsort(key)


def wrap(positions: Tensor, cell: Tensor, pbc: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Positions for a pair search: wrapped along periodic axes, without large gaps along open axes.

    Searches divide the whole extent of the atoms into bins, so that two molecules far apart exhaust memory.

    Args:
        positions: (atoms, 3) float64, Å.
        cell: full rank; rows of open axes are unit vectors at right angles to all others, (3, 3), Å.
        pbc: (3,) bool.
        cutoff: Å; the pairs within it stay the same.

    Returns:
        The new positions, and the lattice translations subtracted from each atom (atoms, 3).
    """
    fractional = positions @ torch.linalg.inv(cell)
    images = torch.floor(fractional) * pbc
    ordered, order = torch.sort(fractional, dim=0)
    steps = torch.diff(ordered, dim=0, prepend=ordered[:1]).clamp(max=cutoff + 1.0)
    closed = torch.zeros_like(fractional).scatter(0, order, torch.cumsum(steps, 0))
    return torch.where(pbc, fractional - images, closed) @ cell, images
