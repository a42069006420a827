"""The one rule by which bonds are guessed where a file has none."""

import numpy as np
from ase.data import covalent_radii as RADII
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# Between these, bonds last: H B C N O F Si P S Cl Ge As Se Br Te I. Contacts of metals and ions come and go.
COVALENT = frozenset({1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 32, 33, 34, 35, 52, 53})
GUESS_TOLERANCE = 1.25


def covalent_radii(numbers: ArrayLike) -> Floats:
    """Covalent radius of each atom (atoms,), Å; zero for virtual sites, whose atomic number is 0.

    Args:
        numbers: atomic numbers (atoms,). The radii are those of Cordero et al. 2008, doi:10.1039/b801115j.
    """
    z = np.asarray(numbers)
    return np.where(z > 0, RADII[np.where((z > 0) & (z < len(RADII)), z, 0)], 0.0)


def bond_radii(numbers: ArrayLike) -> Floats:
    """ρ_i = 1.25 R_i of non-metals, and 0 of metals, noble gases and virtual sites, (atoms,), Å.

    Atoms i and j are bonded where r_ij < ρ_i + ρ_j and neither is 0. A metal ion is a molecule of its own:
    its distance to the first shell of a solvent is that of a bond, and yet the shell is exchanged.

    Args:
        numbers: atomic numbers (atoms,).
    """
    return np.where(np.isin(numbers, list(COVALENT)), GUESS_TOLERANCE * covalent_radii(numbers), 0.0)


def bonded(radii_i: ArrayLike, radii_j: ArrayLike, distance: ArrayLike) -> NDArray[np.bool_]:
    """Which pairs are bonded, by their `bond_radii` and their distance, (pairs,), Å."""
    first, second = np.asarray(radii_i), np.asarray(radii_j)
    return (first > 0) & (second > 0) & (np.asarray(distance) < first + second)
