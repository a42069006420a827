"""A warning of atoms that are nearer to each other than any that models are trained on."""

import warnings
from collections.abc import Sequence

import numpy as np
from ase.data import covalent_radii
from numpy.typing import ArrayLike

from so3k_md.errors import So3kWarning
from so3k_md.pairs import neighbor_pairs

TOO_CLOSE = 0.6  # of the sum of covalent radii


def warn_of_close_pair(
    numbers: ArrayLike,
    positions: ArrayLike,
    cell: ArrayLike | None,
    pbc: ArrayLike,
    names: Sequence[int] | None = None,
    stacklevel: int = 3,
) -> None:
    """Warn of the closest pair, measured by its covalent radii, where it is below TOO_CLOSE.

    Args:
        numbers: atomic numbers, (n,).
        positions: (n, 3), Å.
        cell: (3, 3), Å, or None.
        pbc: (3,) or one for all.
        names: what the atoms are called; their places by default.
        stacklevel: of the warning, for the caller's caller 3.
    """
    radii = covalent_radii[np.asarray(numbers)]
    points = np.asarray(positions, dtype=float)
    i, j, shifts = neighbor_pairs(points, cell, pbc, 2 * TOO_CLOSE * radii.max(initial=0.1), once=True)
    moved = 0.0 if cell is None else shifts @ np.asarray(cell)
    distances = np.linalg.norm(points[j] - points[i] + moved, axis=1)
    shares = distances / (radii[i] + radii[j])
    if shares.min(initial=1.0) >= TOO_CLOSE:
        return
    pair = shares.argmin()
    first, second = (int(k[pair]) if names is None else names[k[pair]] for k in (i, j))
    warnings.warn(
        f"atoms {first} and {second} are {distances[pair]:.2f} Å apart, {shares[pair]:.2f} of the sum of "
        "their covalent radii, closer than models are trained on: minimise first, or correct the positions",
        So3kWarning,
        stacklevel=stacklevel,
    )
