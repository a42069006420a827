"""Warns of atoms that are closer to each other than atoms in training data."""

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
WORSE = 0.8  # times the share in the last warning; a share below this causes another warning
MOST = 10  # warnings for one set of atoms; limits the output of a simulation that explodes


class Contact(NamedTuple):
    """The closest pair of a structure, by distance over the sum of covalent radii."""

    first: int
    second: int
    distance: float  # Å
    share: float  # of the sum of the covalent radii
    through: bool  # whether the pair crosses the boundary of the cell


def closest_contact(
    numbers: ArrayLike, positions: Floats, vectors: Floats, idx_i: Ints, idx_j: Ints
) -> Contact | None:
    """The closest pair, or None if no pair is closer than TOO_CLOSE.

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


def description(contact: Contact, names: Sequence[int] | None = None) -> str:
    """The description of a pair in a warning.

    Args:
        contact: of `closest_contact`.
        names: names of the atoms; by default their indices.
    """
    first, second = (k if names is None else names[k] for k in contact[:2])
    boundary, remedy = "", "minimise first, or correct the positions"
    if contact.through:
        boundary, remedy = " across the boundary of the cell", f"{remedy} or the cell"
    return (
        f"atoms {first} and {second} are {contact.distance:.2f} Å apart{boundary}, {contact.share:.2f} of "
        f"the sum of their covalent radii, closer than atoms in training data: {remedy}"
    )


def warn_of_close_pair(
    numbers: ArrayLike,
    positions: ArrayLike,
    cell: ArrayLike | None,
    pbc: ArrayLike,
    names: Sequence[int] | None = None,
    stacklevel: int = 3,
) -> None:
    """Warn of the closest pair if its distance is below TOO_CLOSE times the sum of covalent radii.

    Args:
        numbers: atomic numbers, (n,).
        positions: (n, 3), Å.
        cell: (3, 3), Å, or None.
        pbc: which axes are periodic (3,), or one flag for all.
        names: names of the atoms; by default their indices.
        stacklevel: of the warning; 3 names the caller of the caller.
    """
    reach = 2 * TOO_CLOSE * covalent_radii[np.asarray(numbers)].max(initial=0.1)
    points = np.asarray(positions, dtype=float)
    i, j, shifts = neighbor_pairs(points, cell, pbc, reach, once=True)
    vectors = points[j] - points[i] + (0.0 if cell is None else shifts @ np.asarray(cell))
    if contact := closest_contact(numbers, points, vectors, i, j):
        warnings.warn(description(contact, names), So3kWarning, stacklevel=stacklevel)


class CloseWatch:
    """Warns of close pairs in successive structures, without repeated warnings.

    It warns if the atoms differ from those of the last call, if the last structure had no close pair, or if
    the closest pair has become much closer.
    """

    def __init__(self) -> None:
        self.numbers = np.zeros(0, dtype=np.int64)
        self.share = np.inf  # in the last warning
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
        """Check the pairs of a structure; arguments as in `closest_contact`."""
        if not np.array_equal(numbers, self.numbers):
            self.numbers, self.share, self.warnings = numbers.copy(), np.inf, 0
        contact = closest_contact(numbers, positions, vectors, idx_i, idx_j)
        if contact is None:
            self.share = np.inf
        elif contact.share < WORSE * self.share and self.warnings < MOST:
            self.share = contact.share
            self.warnings += 1
            last = "; further close pairs of these atoms are not reported" if self.warnings == MOST else ""
            warnings.warn(description(contact) + last, So3kWarning, stacklevel=stacklevel)
