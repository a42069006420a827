"""Molecules made whole: whole lattice vectors summed along a tree of short links. Scriptable, torch alone."""

import torch
from torch import Tensor


def unwrap(positions: Tensor, cell: Tensor, pbc: Tensor, parent: Tensor) -> Tensor:
    """Positions r' = r + S · cell in which each atom is at the nearest image of its parent.

    S_i = s_i + S_parent(i), s_i the whole numbers for which r_i − r_parent(i) + s_i · cell is shortest.
    Roots stay where they are, so a tree that is whole comes back unchanged to the last bit.

    Args:
        positions: in any image, (atoms, 3) float64, Å.
        cell: lattice vectors as rows; rows of open axes are unit vectors at right angles to all others,
            (3, 3) float64, Å.
        pbc: which axes are periodic, (3,) bool.
        parent: of each atom in the tree of its group, a root being its own, (atoms,) int64.

    Returns:
        (atoms, 3) float64, Å.
    """
    shifts = nearest_images(positions - positions.index_select(0, parent), cell, pbc)
    reach = 1  # links that are summed already; no path is longer than the number of atoms
    while reach < parent.size(0):
        shifts = shifts + shifts.index_select(0, parent)
        parent = parent.index_select(0, parent)
        reach = 2 * reach
    return positions + shifts @ cell


def nearest_images(vectors: Tensor, cell: Tensor, pbc: Tensor) -> Tensor:
    """Whole numbers s that make v + s · cell as short as any image of v.

    Rounding the fractional coordinates f of v finds every image shorter than half the smallest height of the
    cell. For the others all s are tried that can shorten v: |f_k + s_k| ≤ |v| / height_k and |f_k| ≤ 1/2.

    Args:
        vectors: (vectors, 3) float64, Å.
        cell: as in `unwrap`, (3, 3) float64, Å.
        pbc: which axes are periodic, (3,) bool.

    Returns:
        (vectors, 3) float64.
    """
    inverse = torch.linalg.inv_ex(cell)[0]
    shifts = -torch.round(vectors @ inverse) * pbc
    rounded = vectors + shifts @ cell
    lengths = torch.linalg.vector_norm(rounded, dim=1)
    heights = 1.0 / torch.linalg.vector_norm(inverse, dim=0)
    lowest = heights.masked_fill(~pbc, torch.inf).min()
    doubtful = torch.nonzero(lengths >= 0.5 * lowest)[:, 0]
    if doubtful.numel() > 0:
        longest = lengths.index_select(0, doubtful).max()
        most = torch.floor(longest / heights + 0.5).to(torch.int64) * pbc
        ranges = [torch.arange(-int(m), int(m) + 1, device=cell.device) for m in most]
        images = torch.cartesian_prod(ranges[0], ranges[1], ranges[2]).to(cell.dtype)
        candidates = rounded.index_select(0, doubtful)[:, None, :] + images @ cell
        shortest = (candidates * candidates).sum(2).argmin(1)
        shifts = shifts.index_add(0, doubtful, images.index_select(0, shortest))
    return shifts
