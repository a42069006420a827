"""Finds bonds and molecules, by one rule for engines and analysis."""

from collections import defaultdict, deque
from typing import Any, NamedTuple

import numpy as np
from ase.data import covalent_radii as RADII
from numpy.typing import ArrayLike, NDArray

from so3k_md.structure.pairs import neighbor_pairs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Elements with lasting bonds: H B C N O F Si P S Cl Ge As Se Br Te I. Contacts of metals and ions change.
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

    Atoms i and j are bonded if r_ij < ρ_i + ρ_j and neither ρ is 0. A metal ion is a separate molecule: the
    first solvent shell is at the distance of a bond, but its molecules exchange.

    Args:
        numbers: atomic numbers (atoms,).
    """
    return np.where(np.isin(numbers, list(COVALENT)), GUESS_TOLERANCE * covalent_radii(numbers), 0.0)


def bonded(radii_i: ArrayLike, radii_j: ArrayLike, distance: ArrayLike) -> NDArray[np.bool_]:
    """Whether pairs are bonded, from their `bond_radii` and their distances, (pairs,), Å."""
    first, second = np.asarray(radii_i), np.asarray(radii_j)
    return (first > 0) & (second > 0) & (np.asarray(distance) < first + second)


class Guess(NamedTuple):
    """The bonds of a structure by `bonded`, and the molecules that they make."""

    bonds: Ints  # (bonds, 2), i < j, sorted
    molecule: Ints  # (atoms,), from 0
    network: NDArray[np.bool_]  # (atoms,), whether its molecule is bonded to its own image, as in crystals

    @property
    def of_molecules(self) -> Ints:
        """All bonds except those of networks, (bonds, 2)."""
        return self.bonds[~self.network[self.bonds[:, 0]]]


def guess_bonds(
    numbers: ArrayLike, positions: ArrayLike, cell: ArrayLike | None = None, pbc: ArrayLike = False
) -> Guess:
    """Bonds by the rule of `bonded`, also to periodic images.

    Args:
        numbers: atomic numbers (atoms,), 0 for virtual sites.
        positions: in any image, (atoms, 3), Å.
        cell: rows are the lattice vectors (3, 3), Å, or None.
        pbc: which axes are periodic (3,), or one flag for all.

    Raises:
        So3kError: a position or the cell is not usable.
    """
    radii = bond_radii(numbers)
    points = np.asarray(positions, dtype=np.float64)
    i, j, shifts = neighbor_pairs(points, cell, pbc, 2 * float(radii.max(initial=0.1)), once=True)
    vectors = points[j] - points[i] + (0.0 if cell is None else shifts @ np.asarray(cell, dtype=np.float64))
    linked = bonded(radii[i], radii[j], np.linalg.norm(vectors, axis=1))
    ends, shifts = np.stack([i[linked], j[linked]], axis=1), shifts[linked]
    parent, molecule = trees(len(radii), ends)
    network = np.isin(molecule, molecule[ends[mismatched_links(ends, shifts, parent), 0]])
    pairs = np.sort(ends[ends[:, 0] != ends[:, 1]], axis=1)
    return Guess(np.unique(pairs, axis=0), molecule, network)


def adjacency(bonds: NDArray[np.integer[Any]]) -> dict[int, list[int]]:
    """The neighbors of each bonded atom, in rising order.

    Args:
        bonds: pairs of atoms (bonds, 2).
    """
    neighbors: dict[int, list[int]] = defaultdict(list)
    for i, j in bonds.tolist():
        neighbors[i].append(j)
        neighbors[j].append(i)
    return {atom: sorted(bonded_to) for atom, bonded_to in neighbors.items()}


def trees(n_atoms: int, bonds: NDArray[np.integer[Any]]) -> tuple[Ints, Ints]:
    """Breadth-first trees along bonds: the parent of each atom (a root is its own), and its tree's number.

    Args:
        n_atoms: number of atoms.
        bonds: pairs of atoms (bonds, 2).
    """
    neighbors = adjacency(bonds)
    parent, tree = np.arange(n_atoms), np.full(n_atoms, -1)
    n_trees = 0
    for root in range(n_atoms):
        if tree[root] >= 0:
            continue
        tree[root] = n_trees
        queue = deque([root])
        while queue:
            i = queue.popleft()
            for j in neighbors.get(i, ()):
                if tree[j] < 0:
                    parent[j], tree[j] = i, n_trees
                    queue.append(j)
        n_trees += 1
    return parent, tree


def mismatched_links(ends: Ints, shifts: Ints, parent: Ints) -> NDArray[np.bool_]:
    """Whether a link ends at another image of an atom than the path along the tree does, (links,).

    Args:
        ends: atoms of each link (links, 2).
        shifts: lattice translations, link = r_j + shift @ cell - r_i (links, 3).
        parent: of `trees` along these links (atoms,).
    """
    step = np.zeros((len(parent), 3), dtype=np.int64)
    forward, backward = parent[ends[:, 1]] == ends[:, 0], parent[ends[:, 0]] == ends[:, 1]
    step[ends[forward, 1]] = shifts[forward]
    step[ends[backward, 0]] = -shifts[backward]
    step[parent == np.arange(len(parent))] = 0
    image, before = step, parent
    for _ in range(len(parent).bit_length()):  # each pass doubles the number of links summed
        image, before = image + image[before], before[before]
    return (image[ends[:, 0]] + shifts != image[ends[:, 1]]).any(axis=1)
