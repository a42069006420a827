"""A warning of atoms that are nearer to each other than any that models are trained on."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase.data import covalent_radii
from numpy.typing import ArrayLike, NDArray

from so3k_md.errors import So3kWarning
from so3k_md.structure.pairs import neighbor_pairs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TOO_CLOSE = 0.6  # of the sum of covalent radii
WORSE = 0.8  # times the share warned of last: what is worth another warning
MOST = 10  # warnings of one set of atoms, lest a simulation that explodes fills the screen


class Contact(NamedTuple):
    """The closest pair of a structure, measured by its covalent radii."""

    first: int
    second: int
    distance: float  # Å
    share: float  # of the sum of the covalent radii
    through: bool  # whether the two meet through a wall of the cell


def closest_contact(
    numbers: ArrayLike, positions: Floats, vectors: Floats, idx_i: Ints, idx_j: Ints
) -> Contact | None:
    """The closest pair, or None where no two atoms are nearer than TOO_CLOSE.

    Args:
        numbers: atomic numbers (atoms,).
        positions: (atoms, 3), Å.
        vectors: from atom i to an image of atom j (pairs, 3), Å.
        idx_i: (pairs,).
        idx_j: (pairs,).
    """
    radii = covalent_radii[np.asarray(numbers)]
    squares = np.einsum("ij,ij->i", vectors, vectors)
    near = np.flatnonzero(squares < (2 * TOO_CLOSE * radii.max(initial=0.0)) ** 2)
    if not len(near):
        return None
    i, j = idx_i[near], idx_j[near]
    shares = np.sqrt(squares[near]) / (radii[i] + radii[j])
    pair = int(shares.argmin())
    if shares[pair] >= TOO_CLOSE:
        return None
    first, second = int(i[pair]), int(j[pair])
    direct = positions[second] - positions[first]
    through = not np.allclose(vectors[near[pair]], direct, rtol=0, atol=1e-3)
    return Contact(first, second, float(np.sqrt(squares[near[pair]])), float(shares[pair]), through)


def words(contact: Contact, names: Sequence[int] | None = None) -> str:
    """What a warning says of a pair.

    Args:
        contact: of `closest_contact`.
        names: what the atoms are called; their places by default.
    """
    first, second = (k if names is None else names[k] for k in contact[:2])
    wall, remedy = "", "minimise first, or correct the positions"
    if contact.through:
        wall, remedy = " through a wall of the cell", f"{remedy} or the cell"
    return (
        f"atoms {first} and {second} are {contact.distance:.2f} Å apart{wall}, {contact.share:.2f} of the "
        f"sum of their covalent radii, closer than models are trained on: {remedy}"
    )


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
    reach = 2 * TOO_CLOSE * covalent_radii[np.asarray(numbers)].max(initial=0.1)
    points = np.asarray(positions, dtype=float)
    i, j, shifts = neighbor_pairs(points, cell, pbc, reach, once=True)
    vectors = points[j] - points[i] + (0.0 if cell is None else shifts @ np.asarray(cell))
    if contact := closest_contact(numbers, points, vectors, i, j):
        warnings.warn(words(contact, names), So3kWarning, stacklevel=stacklevel)


class CloseWatch:
    """Warns of close pairs in structure after structure, without repeating itself.

    It speaks where a pair is too close in other atoms than before, after a structure in which none was, or
    where the closest one has become much closer.
    """

    def __init__(self) -> None:
        self.numbers = np.zeros(0, dtype=np.int64)
        self.share = np.inf  # warned of last
        self.warnings = 0

    def look(
        self,
        numbers: Ints,
        positions: Floats,
        vectors: Floats,
        idx_i: Ints,
        idx_j: Ints,
        stacklevel: int = 3,
    ) -> None:
        """Look at the pairs of a structure; see `closest_contact`."""
        if not np.array_equal(numbers, self.numbers):
            self.numbers, self.share, self.warnings = numbers.copy(), np.inf, 0
        contact = closest_contact(numbers, positions, vectors, idx_i, idx_j)
        if contact is None:
            self.share = np.inf
        elif contact.share < WORSE * self.share and self.warnings < MOST:
            self.share = contact.share
            self.warnings += 1
            last = "; further close pairs of these atoms are not told" if self.warnings == MOST else ""
            warnings.warn(words(contact) + last, So3kWarning, stacklevel=stacklevel)
