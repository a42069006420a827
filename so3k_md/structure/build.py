"""From a structure to what a model sees of it."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from so3k_md.errors import So3kError
from so3k_md.graph import Graph, LongRange, no_long_range
from so3k_md.structure.charges import Totals
from so3k_md.structure.groups import spanning_tree
from so3k_md.structure.pairs import neighbor_pairs
from so3k_md.structure.whole import make_whole

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CLOSEST = 1e-6  # Å; the direction of a shorter pair is rounding


def build_graph(
    numbers: ArrayLike,
    positions: ArrayLike,
    cell: ArrayLike | None,
    pbc: ArrayLike,
    cutoff: float,
    group: ArrayLike | None = None,
    whole: bool = True,
    long: LongRange | None = None,
) -> Graph:
    """The Graph of one structure, with vectors r_j + shift @ cell - r_i in float64.

    Args:
        numbers: atomic numbers (n,).
        positions: (n, 3), Å.
        cell: (3, 3), Å, or None.
        pbc: (3,).
        cutoff: Å.
        group: whole numbers, equal within the groups of a non-local model (n,); None for one group and
            positions as they are.
        whole: bring the atoms of a group into one image; if not, the images given are meant.
        long: for models with long-range physics, of `build_long_range`.

    Raises:
        So3kError: a position or the cell is not usable, or two atoms lie on the same spot.
    """
    idx_i, idx_j, shifts = neighbor_pairs(positions, cell, pbc, cutoff)
    points = np.array(positions, dtype=np.float64).reshape(-1, 3)
    lattice = lattice_rows(cell, pbc)
    vectors = points[idx_j] - points[idx_i] + shifts @ lattice
    refuse_overlap(vectors, idx_i, idx_j)
    species = torch.from_numpy(np.array(numbers, dtype=np.int64))
    number = np.zeros(len(points), dtype=np.int64)
    if group is not None:
        number = np.unique(np.asarray(group), return_inverse=True)[1].astype(np.int64)
        if whole and np.any(pbc):
            points = make_whole(points, cell, pbc, spanning_tree(points, cell, pbc, number))
    frame = torch.zeros_like(species)
    return Graph(
        species=species,
        vectors=torch.from_numpy(vectors),
        idx_i=torch.from_numpy(idx_i),
        idx_j=torch.from_numpy(idx_j),
        frame=frame,
        positions=torch.from_numpy(points),
        group=torch.from_numpy(number),
        cell=torch.from_numpy(lattice)[None],
        long=no_long_range(frame, 1) if long is None else long,
    )


def build_long_range(
    positions: ArrayLike,
    cell: ArrayLike | None,
    pbc: ArrayLike,
    totals: Totals,
    coulomb: str,
    cutoff_lr: float,
) -> LongRange:
    """What the long-range physics needs of one structure.

    Args:
        positions: (n, 3), Å.
        cell: (3, 3), Å, or None.
        pbc: (3,).
        totals: charge, spin and fragments.
        coulomb: one of COULOMB.
        cutoff_lr: Å.
    """
    idx_i, idx_j, shifts = neighbor_pairs(positions, cell, pbc, cutoff_lr, once=True)
    points = np.array(positions, dtype=np.float64).reshape(-1, 3)
    vectors = torch.from_numpy(points[idx_j] - points[idx_i] + shifts @ lattice_rows(cell, pbc))
    return with_totals(vectors, torch.from_numpy(idx_i), torch.from_numpy(idx_j), totals, coulomb, cutoff_lr)


def with_totals(
    vectors: Tensor, idx_i: Tensor, idx_j: Tensor, totals: Totals, coulomb: str, cutoff_lr: float
) -> LongRange:
    """Pairs beyond the cutoff together with the totals of their one structure."""
    return LongRange(
        vectors,
        idx_i,
        idx_j,
        torch.tensor([totals.charge], dtype=torch.float64),
        torch.tensor([totals.unpaired], dtype=torch.float64),
        torch.from_numpy(totals.fragment),
        torch.from_numpy(totals.fragment_charge),
        coulomb,
        cutoff_lr,
    )


def lattice_rows(cell: ArrayLike | None, pbc: ArrayLike) -> Floats:
    """The lattice vectors of periodic axes, zeros in the rows of open ones, (3, 3), Å."""
    periodic = np.broadcast_to(np.asarray(pbc, dtype=bool), (3,))
    rows = np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=np.float64)
    return np.where(periodic[:, None], rows, 0.0)


def refuse_overlap(vectors: Floats, idx_i: Ints, idx_j: Ints) -> None:
    """Stop where a pair has no direction.

    Args:
        vectors: (pairs, 3), Å.
        idx_i: (pairs,).
        idx_j: (pairs,).

    Raises:
        So3kError: names the two atoms.
    """
    overlapping = np.flatnonzero((vectors * vectors).sum(axis=1) < CLOSEST**2)
    if len(overlapping):
        pair = overlapping[0]
        raise So3kError(
            f"atoms {idx_i[pair]} and {idx_j[pair]} lie on the same spot (closer than {CLOSEST:.0e} Å): "
            "remove the duplicate or correct the positions"
        )
