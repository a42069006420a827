"""Searches pairs on the CPU: all pairs and images within a distance, for any cell."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from vesin import NeighborList

from so3k_md.errors import So3kError
from so3k_md.structure.lists import wrap

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FARTHEST = 1e7  # Å; float64 resolves 2e-9 Å at this distance, beyond it forces lose digits
FEW = 64  # atoms; above, a search by bins takes less time
THINNEST = 0.1  # Å; a thinner periodic cell is an error of units and has millions of images


def neighbor_pairs(
    positions: ArrayLike, cell: ArrayLike | None, pbc: ArrayLike, cutoff: float, once: bool = False
) -> tuple[Ints, Ints, Ints]:
    """List of pairs with |r_j + shift @ cell - r_i| <= cutoff, all images, in both directions.

    Boxes may be smaller than the cutoff, atoms may lie in any image, and each axis is periodic or not.

    Args:
        positions: (n, 3), Å.
        cell: rows are the lattice vectors (3, 3), Å; rows of axes that are not periodic are not used.
        pbc: which axes are periodic (3,).
        cutoff: Å.
        once: every pair in one direction only.

    Returns:
        idx_i, idx_j (pairs,) and shifts (pairs, 3), whole lattice vectors. Pairs in both directions are
        in the order of idx_i, which kernels for GPUs need.

    Raises:
        So3kError: a position or the cell is not usable.
    """
    points = finite_positions(positions)
    lattice, periodic = full_rank(cell, pbc)
    r, box, axes = (torch.from_numpy(np.array(array)) for array in (points, lattice, periodic))
    idx_i, idx_j, shifts = (tensor.numpy() for tensor in search(r, box, axes, cutoff, once))
    return idx_i, idx_j, shifts


def search(
    positions: Tensor, cell: Tensor, pbc: Tensor, cutoff: float, once: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """`neighbor_pairs` of checked arguments, for tensors on the CPU.

    Args:
        positions: (n, 3) float64, Å.
        cell: of full rank, see `full_rank`, (3, 3) float64, Å.
        pbc: which axes are periodic, (3,) bool.
        cutoff: Å.
        once: every pair in one direction only.
    """
    periodic = pbc.numpy()
    if len(positions) <= FEW and not periodic.any():
        return search_few(positions, cutoff, once)
    wrapped, images = wrap(positions, cell, pbc, cutoff)
    points = wrapped.numpy()
    if not periodic.any():
        # the time of a search grows with the cube of the distance, also for few atoms
        cutoff = min(cutoff, float(np.linalg.norm(np.ptp(points, axis=0))) + 1.0)
    found = NeighborList(cutoff=cutoff, full_list=not once, sorted=not once).compute(
        points, cell.numpy(), periodic, "ijS"
    )
    idx_i, idx_j, shifts = (torch.from_numpy(array.astype(np.int64)) for array in found)
    whole = images.to(torch.int64)
    # the list is that of wrapped atoms: r_j - image_j @ cell = wrapped_j
    return idx_i, idx_j, shifts + whole.index_select(0, idx_i) - whole.index_select(0, idx_j)


def search_few(positions: Tensor, cutoff: float, once: bool) -> tuple[Tensor, Tensor, Tensor]:
    """`search` of an open structure by all of its distances, which takes less time for few atoms.

    Args:
        positions: (n, 3) float64, Å.
        cutoff: Å.
        once: every pair in one direction only.
    """
    points = positions.numpy()
    vectors = points[:, None] - points
    near = np.einsum("ijk,ijk->ij", vectors, vectors) <= cutoff * cutoff
    np.fill_diagonal(near, False)
    idx_i, idx_j = map(torch.from_numpy, np.nonzero(np.triu(near) if once else near))
    return idx_i, idx_j, torch.zeros((len(idx_i), 3), dtype=torch.int64)


def search_once(positions: Tensor, cell: Tensor, pbc: Tensor, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """`search` for every pair in one direction only."""
    return search(positions, cell, pbc, cutoff, once=True)


def full_rank(cell: ArrayLike | None, pbc: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    """The lattice and the flags; rows of open axes are unit vectors at right angles to all others.

    Args:
        cell: rows are the lattice vectors, (3, 3), Å; None where no axis is periodic.
        pbc: which axes are periodic (3,).

    Raises:
        So3kError: the cell is not finite, flat along a periodic axis, or very thin.
    """
    periodic = np.array(np.broadcast_to(np.asarray(pbc, dtype=bool), (3,)))
    rows = np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=np.float64)
    if rows.shape != (3, 3):
        raise So3kError(f"the cell has shape {rows.shape}: give three lattice vectors as rows, in Å")
    if not periodic.any():
        return np.eye(3), periodic
    vectors = rows[periodic]
    if not np.isfinite(vectors).all():
        raise So3kError(f"the cell {rows.tolist()} is not finite: correct it, or set pbc to F F F")
    lattice = np.zeros((3, 3))
    lattice[periodic] = vectors
    # right singular vectors beyond the rank span the space orthogonal to all lattice vectors
    _, widths, axes = np.linalg.svd(vectors, full_matrices=True)
    lattice[~periodic] = axes[len(vectors) :]
    if len(widths) and widths[-1] < 1e-6 * widths[0] or not widths.all():
        raise So3kError(
            f"the cell {rows.tolist()} has no extent along a periodic axis: "
            "correct the lattice vectors (Å) or the pbc flags"
        )
    thinnest = heights(lattice).min()
    if thinnest < THINNEST:
        raise So3kError(f"the cell is only {thinnest:.3g} Å thick: give the lattice vectors in Å")
    return lattice, periodic


def heights(lattice: Floats) -> Floats:
    """Distances between opposite faces of a cell of full rank, (3,), Å."""
    return 1.0 / np.linalg.norm(np.linalg.inv(lattice), axis=0)


def finite_positions(positions: ArrayLike) -> Floats:
    """Positions as an array (n, 3), or a refusal that names the atom."""
    points = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
    bad = np.flatnonzero(~(np.abs(points) < FARTHEST).all(axis=1))
    if len(bad):
        raise So3kError(
            f"atom {bad[0]} is at {points[bad[0]].tolist()} Å: coordinates must be finite and below "
            f"{FARTHEST:.0e} Å; check the input, or the time step if this is a simulation"
        )
    return points
