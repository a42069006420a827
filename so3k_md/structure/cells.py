"""Checks whether a periodic cell fits its atoms, by one rule for engines, data and analysis."""

from typing import NamedTuple

import numpy as np
from ase.data import atomic_masses
from numpy.typing import ArrayLike, NDArray

from so3k_md.errors import So3kError
from so3k_md.structure.bonds import covalent_radii
from so3k_md.structure.pairs import neighbor_pairs

Floats = NDArray[np.float64]

# Metallic hydrogen at 500 GPa has 1.3 Å³ per atom, osmium 22.6 g/cm³.
SMALLEST_VOLUME = 1.0  # Å³ per atom
HIGHEST_DENSITY = 30.0  # g/cm³
AMU_PER_CUBIC_ANGSTROM = 1.66053907  # g/cm³
OVERLAP = 0.5  # share of the sum of two covalent radii; atoms of a real structure are not closer
DUMMY = np.eye(3)  # Å; CRYST1 of PDB entries without a crystal, such as NMR and EM entries


class Overlap(NamedTuple):
    """Two atoms that overlap across the boundary of a cell."""

    first: int
    second: int
    distance: float  # Å


class Limits(NamedTuple):
    """Lower limits for the cell of some atoms."""

    length: float  # of each lattice vector, Å
    volume: float  # Å³


def limits_of(numbers: ArrayLike) -> Limits:
    """The limits with which `cell_fault` compares a cell that is periodic along all axes.

    Args:
        numbers: atomic numbers (atoms,), 0 for virtual sites.
    """
    z = np.asarray(numbers, dtype=np.int64)
    real = z[z > 0]
    by_density = AMU_PER_CUBIC_ANGSTROM * float(atomic_masses[real].sum()) / HIGHEST_DENSITY
    length = 2 * OVERLAP * float(covalent_radii(real).max(initial=0.0))
    return Limits(length, max(SMALLEST_VOLUME * len(real), by_density))


def is_dummy(cell: ArrayLike | None) -> bool:
    """Whether a cell is the cube of 1 Å by which PDB files state that there is no cell.

    Args:
        cell: rows are the lattice vectors (3, 3), Å, or None.
    """
    return cell is not None and np.allclose(cell, DUMMY, atol=1e-3)


def cell_fault(numbers: ArrayLike, cell: ArrayLike, pbc: ArrayLike) -> str | None:
    """Why a cell cannot fit the atoms, as a phrase to follow "the cell" in a message; None if it can.

    Args:
        numbers: atomic numbers (atoms,), 0 for virtual sites.
        cell: rows are the lattice vectors (3, 3), Å; rows of open axes are ignored.
        pbc: which axes are periodic (3,), or one flag for all.
    """
    z, lattice = np.asarray(numbers, dtype=np.int64), np.asarray(cell, dtype=np.float64)
    periodic = np.broadcast_to(np.asarray(pbc, dtype=bool), (3,))
    real = z[z > 0]
    if not len(real) or not periodic.any():
        return None
    if periodic.all() and is_dummy(lattice):
        return "is the cube of 1 Å that PDB files contain if there is no cell"
    lengths = np.linalg.norm(lattice[periodic], axis=1)
    if lengths.min() < limits_of(real).length:
        return f"repeats after {lengths.min():.2f} Å, so that an atom would overlap with its own image"
    if not periodic.all():
        return None
    volume = abs(float(np.linalg.det(lattice)))
    if volume < SMALLEST_VOLUME * len(real):
        return (
            f"has {volume / len(real):.2g} Å³ for each of its {len(real)} atoms, less than in any known "
            "material"
        )
    found = density(real, lattice)
    if found > HIGHEST_DENSITY:
        return f"gives its {len(real)} atoms a density of {found:.3g} g/cm³, more than any known material has"
    return None


def density(numbers: ArrayLike, cell: ArrayLike) -> float:
    """Density of the atoms in a cell, g/cm³.

    Args:
        numbers: atomic numbers (atoms,).
        cell: rows are the lattice vectors (3, 3), Å.
    """
    mass = float(atomic_masses[np.asarray(numbers, dtype=np.int64)].sum())
    return AMU_PER_CUBIC_ANGSTROM * mass / abs(float(np.linalg.det(np.asarray(cell, dtype=np.float64))))


def check_cell(numbers: ArrayLike, cell: ArrayLike, pbc: ArrayLike, where: str, remedy: str) -> None:
    """Refuse a cell that does not fit the atoms.

    Args:
        numbers: see `cell_fault`.
        cell: see there.
        pbc: see there.
        where: name of the structure in messages, such as "frame 3 of water.xyz".
        remedy: how the user gives another cell, or none.

    Raises:
        So3kError: see `cell_fault`.
    """
    if fault := cell_fault(numbers, cell, pbc):
        raise So3kError(f"the cell of {where} {fault}: {remedy}")


def overlap_through_walls(
    numbers: ArrayLike, positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike
) -> Overlap | None:
    """The closest two atoms that overlap only across the boundary of the cell, or None.

    Some files contain a cell that does not belong to the atoms, such as the default box of 2 nm that OpenMM
    writes for systems without one. In such a cell atoms overlap with images, but not with each other.

    Args:
        numbers: atomic numbers (atoms,), 0 for virtual sites, which are ignored.
        positions: unwrapped, (atoms, 3), Å.
        cell: rows are the lattice vectors (3, 3), Å.
        pbc: which axes are periodic (3,), or one flag for all.
    """
    rows = np.flatnonzero(np.asarray(numbers) > 0)
    radii = covalent_radii(np.asarray(numbers)[rows])
    points, lattice = np.asarray(positions, dtype=np.float64)[rows], np.asarray(cell, dtype=np.float64)
    if not len(rows) or not np.any(pbc):
        return None
    i, j, shifts = neighbor_pairs(points, lattice, pbc, 2 * OVERLAP * radii.max(), once=True)
    distance = np.linalg.norm(points[j] - points[i] + shifts @ lattice, axis=1)
    share = distance / (radii[i] + radii[j])
    through = (shifts != 0).any(axis=1)
    if share[~through].min(initial=1.0) < OVERLAP or share[through].min(initial=1.0) >= OVERLAP:
        return None
    worst = np.where(through, share, np.inf).argmin()
    return Overlap(int(rows[i[worst]]), int(rows[j[worst]]), float(distance[worst]))
