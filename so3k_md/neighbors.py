"""Neighbour lists on the CPU: every pair and every image within the cutoff, for any cell."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from vesin import NeighborList

from so3k_md.errors import So3kError
from so3k_md.graph import Graph
from so3k_md.verlet import wrap

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FARTHEST = 1e7  # Å; float64 resolves 2e-9 Å there, farther out forces lose their digits
THINNEST = 0.1  # Å; a thinner periodic cell is a mistake of units and has millions of images
CLOSEST = 1e-6  # Å; the direction of a shorter pair is rounding


def neighbor_pairs(
    positions: ArrayLike, cell: ArrayLike | None, pbc: ArrayLike, cutoff: float
) -> tuple[Ints, Ints, Ints]:
    """Full list of pairs with |r_j + shift @ cell - r_i| <= cutoff, both directions and all images.

    Boxes may be smaller than the cutoff, atoms may lie in any image, and each axis is periodic or not.

    Args:
        positions: (n, 3), Å.
        cell: rows are the lattice vectors (3, 3), Å; rows of axes that are not periodic are not used.
        pbc: which axes are periodic (3,).
        cutoff: Å.

    Returns:
        idx_i, idx_j (pairs,) and shifts (pairs, 3), whole lattice vectors.

    Raises:
        So3kError: a position or the cell is not usable.
    """
    positions, cell, periodic = _checked(positions, cell, pbc)
    lattice = _orthogonal_completion(cell, periodic)
    r, box, pbc_ = (torch.tensor(np.ascontiguousarray(array)) for array in (positions, lattice, periodic))
    points, images = (tensor.numpy() for tensor in wrap(r, box, pbc_, cutoff))
    search = NeighborList(cutoff=cutoff, full_list=True)
    i, j, shifts = search.compute(points, lattice, periodic, "ijS")
    idx_i, idx_j = i.astype(np.int64), j.astype(np.int64)
    image = images.astype(np.int64)
    # the list was made of wrapped atoms: r_j - image_j = wrapped_j
    total = shifts.astype(np.int64) + image[idx_i] - image[idx_j]
    return idx_i, idx_j, total


def build_graph(
    numbers: ArrayLike, positions: ArrayLike, cell: ArrayLike | None, pbc: ArrayLike, cutoff: float
) -> Graph:
    """The Graph of one structure, with vectors r_j + shift @ cell - r_i in float64.

    Args:
        numbers: atomic numbers (n,).
        positions: (n, 3), Å.
        cell: (3, 3), Å, or None.
        pbc: (3,).
        cutoff: Å.

    Raises:
        So3kError: a position or the cell is not usable, or two atoms lie on the same spot.
    """
    idx_i, idx_j, shifts = neighbor_pairs(positions, cell, pbc, cutoff)
    points = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
    vectors = points[idx_j] - points[idx_i]
    if shifts.any():
        vectors += shifts @ np.asarray(cell, dtype=np.float64)
    _refuse_overlap(vectors, idx_i, idx_j)
    species = torch.from_numpy(np.array(numbers, dtype=np.int64))
    return Graph(
        species=species,
        vectors=torch.from_numpy(vectors),
        idx_i=torch.from_numpy(idx_i),
        idx_j=torch.from_numpy(idx_j),
        frame=torch.zeros_like(species),
    )


def _checked(
    positions: ArrayLike, cell: ArrayLike | None, pbc: ArrayLike
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """The arguments as arrays, or a refusal that names the atom or axis."""
    points = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
    bad = np.flatnonzero(~(np.abs(points) < FARTHEST).all(axis=1))
    if len(bad):
        raise So3kError(
            f"atom {bad[0]} is at {points[bad[0]].tolist()} Å: coordinates must be finite and below "
            f"{FARTHEST:.0e} Å; check the input, or the time step if this is a simulation"
        )
    periodic = np.broadcast_to(np.asarray(pbc, dtype=bool), (3,))
    lattice = np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=np.float64)
    if lattice.shape != (3, 3):
        raise So3kError(f"the cell has shape {lattice.shape}: give three lattice vectors as rows, in Å")
    if not np.isfinite(lattice[periodic]).all():
        raise So3kError(f"the cell {lattice.tolist()} is not finite: correct it, or set pbc to F F F")
    return points, lattice, periodic


def _orthogonal_completion(cell: Floats, periodic: NDArray[np.bool_]) -> Floats:
    """The periodic lattice vectors, with unit vectors at right angles to them in the other rows."""
    vectors = cell[periodic]
    lattice = np.zeros((3, 3))
    lattice[periodic] = vectors
    # right singular vectors beyond the rank span what no lattice vector reaches
    _, widths, axes = np.linalg.svd(vectors, full_matrices=True)
    lattice[~periodic] = axes[len(vectors) :]
    if len(widths) and widths[-1] < 1e-6 * widths[0] or not widths.all():
        raise So3kError(
            f"the cell {cell.tolist()} has no extent along a periodic axis: "
            "correct the lattice vectors (Å) or the pbc flags"
        )
    heights = 1.0 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    if heights.min() < THINNEST:
        raise So3kError(f"the cell is {heights.min():.3g} Å thin: lattice vectors must be in Å")
    return lattice


def _refuse_overlap(vectors: Floats, idx_i: Ints, idx_j: Ints) -> None:
    """Stop where a pair has no direction."""
    overlapping = np.flatnonzero((vectors * vectors).sum(axis=1) < CLOSEST**2)
    if len(overlapping):
        pair = overlapping[0]
        raise So3kError(
            f"atoms {idx_i[pair]} and {idx_j[pair]} lie on the same spot (closer than {CLOSEST:.0e} Å): "
            "remove the duplicate or correct the positions"
        )
