"""Unwraps molecules and groups, by trees of short links along which lattice translations are summed.

`unwrap` and `nearest_images` are scriptable.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from so3k_md.structure.pairs import finite_positions, full_rank, heights, search

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

LINK = 3.0  # Å; longer than bonds, so that links up to this length connect nearly every molecule
GROWTH = 0.5  # Å; a bond that grows by more is considered broken


def unwrap(positions: Tensor, cell: Tensor, pbc: Tensor, parent: Tensor) -> Tensor:
    """Positions r' = r + S · cell in which each atom is at the nearest image of its parent.

    S_i = s_i + S_parent(i), s_i the whole numbers for which r_i − r_parent(i) + s_i · cell is shortest.
    Roots do not move, so that the positions of a tree in one image do not change in any bit.

    Args:
        positions: in any image, (atoms, 3) float64, Å.
        cell: lattice vectors as rows; rows of open axes are unit vectors at right angles to all others,
            (3, 3) float64, Å.
        pbc: which axes are periodic, (3,) bool.
        parent: of each atom in the tree of its group; a root is its own parent, (atoms,) int64.

    Returns:
        (atoms, 3) float64, Å.
    """
    links = positions - positions.index_select(0, parent)
    return along_trees(positions, nearest_images(links, cell, pbc), cell, parent)


def unwrap_short(positions: Tensor, cell: Tensor, pbc: Tensor, parent: Tensor) -> tuple[Tensor, Tensor]:
    """`unwrap` where all links are short, and whether this is so, () bool; the host reads nothing."""
    shifts, rounded, half = rounded_images(positions - positions.index_select(0, parent), cell, pbc)
    short = (torch.linalg.vector_norm(rounded, dim=1) < half).all()
    return along_trees(positions, shifts, cell, parent), short


def along_trees(positions: Tensor, shifts: Tensor, cell: Tensor, parent: Tensor) -> Tensor:
    """r + S · cell of `unwrap`, from the s of all atoms, (atoms, 3)."""
    reach = 1  # number of links summed so far; no path has more links than there are atoms
    while reach < parent.size(0):
        shifts = shifts + shifts.index_select(0, parent)
        parent = parent.index_select(0, parent)
        reach = 2 * reach
    return positions + shifts @ cell


def nearest_images(vectors: Tensor, cell: Tensor, pbc: Tensor) -> Tensor:
    """Whole numbers s that make v + s · cell as short as any image of v.

    Rounding the fractional coordinates f of v gives the shortest image if that is shorter than half the
    smallest height of the cell. For other v each s is tried that can shorten v: |f_k + s_k| ≤ |v| / height_k
    and |f_k| ≤ 1/2.

    Args:
        vectors: (vectors, 3) float64, Å.
        cell: as in `unwrap`, (3, 3) float64, Å.
        pbc: which axes are periodic, (3,) bool.

    Returns:
        (vectors, 3) float64.
    """
    shifts, rounded, half = rounded_images(vectors, cell, pbc)
    lengths = torch.linalg.vector_norm(rounded, dim=1)
    doubtful = torch.nonzero(lengths >= half)[:, 0]
    if doubtful.numel() > 0:
        heights = 1.0 / torch.linalg.vector_norm(torch.linalg.inv_ex(cell)[0], dim=0)
        longest = lengths.index_select(0, doubtful).max()
        most = torch.floor(longest / heights + 0.5).to(torch.int64) * pbc
        ranges = [torch.arange(-int(m), int(m) + 1, device=cell.device) for m in most]
        images = torch.cartesian_prod(ranges[0], ranges[1], ranges[2]).to(cell.dtype)
        candidates = rounded.index_select(0, doubtful)[:, None, :] + images @ cell
        shortest = (candidates * candidates).sum(2).argmin(1)
        shifts = shifts.index_add(0, doubtful, images.index_select(0, shortest))
    return shifts


def rounded_images(vectors: Tensor, cell: Tensor, pbc: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """s of `nearest_images` by rounding, v + s · cell, and the length () below which this is the shortest."""
    inverse = torch.linalg.inv_ex(cell)[0]
    shifts = -torch.round(vectors @ inverse) * pbc
    heights = 1.0 / torch.linalg.vector_norm(inverse, dim=0)
    return shifts, vectors + shifts @ cell, 0.5 * heights.masked_fill(~pbc, torch.inf).min()


class Unwrapper:
    """Unwraps the groups of a structure at each step.

    The tree of links is kept while atoms and groups are the same, no link has grown by GROWTH, and each is
    shorter than half the smallest height of the cell. For longer links another image may be the nearest.
    """

    def __init__(self) -> None:
        self.builds = 0  # number of times the links were computed
        self.structure: list[NDArray[Any]] = []
        self.parent = np.zeros(0, dtype=np.int64)
        self.lengths = np.zeros(0)

    def __call__(self, positions: Floats, lattice: Floats, pbc: Flags, group: Ints, numbers: Ints) -> Floats:
        """Positions in which each group lies in one image, (n, 3), Å.

        Args:
            positions: finite, in any image, (n, 3), Å.
            lattice: of full rank, see `full_rank`, (3, 3), Å.
            pbc: which axes are periodic (3,); at least one.
            group: equal within a group (n,).
            numbers: atomic numbers (n,).
        """
        structure = [group, numbers, pbc]
        if self.structure and all(map(np.array_equal, structure, self.structure)):
            whole = _unwrapped(positions, lattice, pbc, self.parent)
            lengths = np.linalg.norm(whole - whole[self.parent], axis=1)
            longest = 0.5 * heights(lattice)[pbc].min()
            if (lengths < longest).all() and (lengths < self.lengths + GROWTH).all():
                return whole
        self.builds += 1
        self.structure = [array.copy() for array in structure]
        self.parent = _tree(positions, lattice, pbc, group)
        whole = _unwrapped(positions, lattice, pbc, self.parent)
        self.lengths = np.linalg.norm(whole - whole[self.parent], axis=1)
        return whole


def spanning_tree(positions: ArrayLike, cell: ArrayLike | None, pbc: ArrayLike, group: ArrayLike) -> Ints:
    """The parent of each atom in the tree of shortest links between nearest images that connects its group.

    The root of a tree is the first atom of its group and its own parent. In a molecule that touches its own
    image, bonds are shorter than the contacts with the image, so that the tree follows the bonds.

    Args:
        positions: in any image, (n, 3), Å.
        cell: rows are the lattice vectors, (3, 3), Å.
        pbc: which axes are periodic (3,).
        group: equal within a group (n,).

    Returns:
        (n,), for `unwrap`.

    Raises:
        So3kError: a position or the cell is not usable.
    """
    return _tree(finite_positions(positions), *full_rank(cell, pbc), np.asarray(group))


def _unwrapped(points: Floats, lattice: Floats, periodic: Flags, parent: Ints) -> Floats:
    """`unwrap` for arrays."""
    arrays = points, lattice, periodic, parent
    return unwrap(*(torch.from_numpy(np.array(array)) for array in arrays)).numpy()


def _tree(points: Floats, lattice: Floats, periodic: Flags, group: Ints) -> Ints:
    """`spanning_tree` of checked arguments."""
    from scipy.sparse import csr_array  # imported here because local models do not need scipy
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

    _, roots, number = np.unique(group, return_index=True, return_inverse=True)
    n = len(number)
    i, j, lengths = _short_links(points, lattice, periodic, number)
    # a node above all roots joins all trees; no weight is zero, because zero means no link
    weights = np.concatenate([1.0 + lengths, np.ones(len(roots))])
    ends = np.concatenate([i, np.full(len(roots), n)]), np.concatenate([j, roots])
    forest = minimum_spanning_tree(csr_array((weights, ends), shape=(n + 1, n + 1)))
    parent = breadth_first_order(forest, n, directed=False)[1][:n].astype(np.int64)
    parent[roots] = roots
    disconnected = np.unique(number[parent < 0])
    if len(disconnected):
        order = np.argsort(number, kind="stable")
        members = np.split(order, np.cumsum(np.bincount(number))[:-1])
        for rows in (members[k] for k in disconnected):
            parent[rows] = rows[_long_tree(points[rows], lattice, periodic)]
    return parent


def _short_links(points: Floats, lattice: Floats, periodic: Flags, number: Ints) -> tuple[Ints, Ints, Floats]:
    """Pairs i < j of a group no longer than LINK, each once, with the distance of the nearest images."""
    r, box, axes = (torch.from_numpy(np.array(array)) for array in (points, lattice, periodic))
    i, j, shifts = (tensor.numpy() for tensor in search(r, box, axes, LINK))
    inside = np.flatnonzero((i < j) & (number[i] == number[j]))
    i, j, shifts = i[inside], j[inside], shifts[inside]
    lengths = np.linalg.norm(points[j] - points[i] + shifts @ lattice, axis=1)
    pair = i * len(points) + j
    order = np.lexsort((lengths, pair))
    nearest = order[np.unique(pair[order], return_index=True)[1]]
    return i[nearest], j[nearest], lengths[nearest]


def _long_tree(points: Floats, lattice: Floats, periodic: Flags) -> Ints:
    """Parents in a minimum spanning tree without a limit of length; Prim's algorithm, no array of pairs."""
    inverse = np.linalg.inv(lattice)
    parent = np.zeros(len(points), dtype=np.int64)
    shortest = np.full(len(points), np.inf)
    outside = np.ones(len(points), dtype=bool)
    newest = 0
    for _ in points:
        outside[newest] = False
        vectors = points - points[newest]
        vectors -= (np.round(vectors @ inverse) * periodic) @ lattice
        lengths = np.einsum("ij,ij->i", vectors, vectors)
        closer = outside & (lengths < shortest)
        shortest[closer], parent[closer] = lengths[closer], newest
        newest = int(np.argmin(np.where(outside, shortest, np.inf)))
    return parent
