"""Groups in one image: what comes broken over the boundary is put together, once or step after step."""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from so3k_md.structure.groups import spanning_tree
from so3k_md.structure.pairs import full_rank, heights
from so3k_md.structure.unwrap import unwrap

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

GROWTH = 0.5  # Å; a bond that grows by more is no longer one


def make_whole(positions: Floats, cell: ArrayLike | None, pbc: ArrayLike, parent: Ints) -> Floats:
    """`unwrap` for arrays and any cell.

    Args:
        positions: in any image, (n, 3), Å.
        cell: rows are the lattice vectors, (3, 3), Å.
        pbc: which axes are periodic (3,).
        parent: as `spanning_tree` gives it (n,).
    """
    lattice, periodic = full_rank(cell, pbc)
    arrays = positions, lattice, periodic, parent
    return unwrap(*(torch.from_numpy(np.array(array)) for array in arrays)).numpy()


class Unwrapper:
    """Makes the groups of a structure whole, step after step.

    The tree of links is kept while atoms and groups are the same, no link has grown by GROWTH, and none is as
    long as half the smallest height of the cell, from where on another image of its atom may be the nearest.
    """

    def __init__(self) -> None:
        self.builds = 0  # how often the links were made
        self.structure: list[NDArray[Any]] = []
        self.parent = np.zeros(0, dtype=np.int64)
        self.lengths = np.zeros(0)

    def __call__(
        self, positions: Floats, cell: ArrayLike | None, pbc: ArrayLike, group: Ints, numbers: Ints
    ) -> Floats:
        """Positions in which each group lies in one image, (n, 3), Å.

        Args:
            positions: in any image, (n, 3), Å.
            cell: rows are the lattice vectors, (3, 3), Å.
            pbc: which axes are periodic (3,).
            group: equal within a group (n,).
            numbers: atomic numbers (n,).

        Raises:
            So3kError: a position or the cell is not usable.
        """
        lattice, periodic = full_rank(cell, pbc)
        if not periodic.any():
            return positions
        structure = [np.array(array) for array in (group, numbers, periodic)]
        if self.structure and all(map(np.array_equal, structure, self.structure)):
            whole = make_whole(positions, lattice, periodic, self.parent)
            lengths = np.linalg.norm(whole - whole[self.parent], axis=1)
            longest = 0.5 * heights(lattice)[periodic].min()
            if (lengths < longest).all() and (lengths < self.lengths + GROWTH).all():
                return whole
        self.builds += 1
        self.structure = structure
        self.parent = spanning_tree(positions, lattice, periodic, group)
        whole = make_whole(positions, lattice, periodic, self.parent)
        self.lengths = np.linalg.norm(whole - whole[self.parent], axis=1)
        return whole
