"""The bond graph: guessed where the topology has none, and what follows from it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from so3k_md.analysis.contacts import close_pairs
from so3k_md.analysis.geometry import NOT_PERIODIC, Array, Integers

# Single-bond covalent radii, Å, of H (1) to Cm (96): Cordero et al. 2008, doi:10.1039/b801115j
# (C sp3; low-spin Mn, Fe and Co).
COVALENT_RADII = np.array(
    [0.0, 0.31, 0.28, 1.28, 0.96, 0.84, 0.76, 0.71, 0.66, 0.57, 0.58, 1.66, 1.41, 1.21, 1.11, 1.07, 1.05]
    + [
        1.02,
        1.06,
        2.03,
        1.76,
        1.70,
        1.60,
        1.53,
        1.39,
        1.39,
        1.32,
        1.26,
        1.24,
        1.32,
        1.22,
        1.22,
        1.20,
        1.19,
        1.20,
    ]
    + [1.20, 1.16, 2.20, 1.95, 1.90, 1.75, 1.64, 1.54, 1.47, 1.46, 1.42, 1.39, 1.45, 1.44, 1.42, 1.39, 1.39]
    + [1.38, 1.39, 1.40, 2.44, 2.15, 2.07, 2.04, 2.03, 2.01, 1.99, 1.98, 1.98, 1.96, 1.94, 1.92, 1.92, 1.89]
    + [1.90, 1.87, 1.87, 1.75, 1.70, 1.62, 1.51, 1.44, 1.41, 1.36, 1.36, 1.32, 1.45, 1.46, 1.48, 1.40, 1.50]
    + [1.50, 2.60, 2.21, 2.15, 2.06, 2.00, 1.96, 1.90, 1.87, 1.80, 1.69]
)
# Between these, bonds last: H B C N O F Si P S Cl Ge As Se Br Te I. Contacts of metals and ions come and go.
COVALENT = frozenset({1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 32, 33, 34, 35, 52, 53})
GUESS_TOLERANCE = 1.25


def covalent_radii(numbers: Integers) -> Array:
    """Covalent radius of each atom (atoms,), Å; zero for virtual sites, which have no atomic number."""
    return COVALENT_RADII[np.where(numbers < len(COVALENT_RADII), numbers, 0)]


def guess_bonds(
    positions: Array,
    numbers: Integers,
    cell: Array | None = None,
    pbc: tuple[bool, bool, bool] = NOT_PERIODIC,
) -> Integers:
    """Bonds of one structure: r_ij < 1.25 (R_i + R_j) between non-metals, (bonds, 2) with i < j.

    Args:
        positions: (atoms, 3), Å.
        numbers: atomic numbers (atoms,).
        cell: rows are the cell vectors (3, 3), Å, or None.
        pbc: which of the three cell vectors are periodic.
    """
    radii = np.where(np.isin(numbers, list(COVALENT)), covalent_radii(numbers), 0.0)
    if not radii.any():
        return np.zeros((0, 2), dtype=np.int64)
    cells = None if cell is None else cell[None]
    close = close_pairs(positions[None], cells, pbc, cutoff=2 * GUESS_TOLERANCE * radii.max())
    both = (radii[close.i] > 0) & (radii[close.j] > 0)
    bonded = both & (close.distance < GUESS_TOLERANCE * (radii[close.i] + radii[close.j]))
    return np.stack([close.i[bonded], close.j[bonded]], axis=1)


def adjacency(bonds: Integers) -> dict[int, list[int]]:
    """The neighbours of each bonded atom, in rising order."""
    neighbours: dict[int, list[int]] = defaultdict(list)
    for i, j in bonds.tolist():
        neighbours[i].append(j)
        neighbours[j].append(i)
    return {atom: sorted(found) for atom, found in neighbours.items()}


def bond_tree(bonds: Integers, n_atoms: int) -> tuple[Integers, Integers]:
    """The molecules as one spanning tree each: its parent (-1 at roots), visited before it, and its molecule.

    Returns:
        parents (atoms, 2): rows (atom, parent) in the order of the visit; molecules (atoms,): index per atom.
    """
    neighbours = adjacency(bonds)
    molecules = np.full(n_atoms, -1, dtype=np.int64)
    visits: list[tuple[int, int]] = []
    count = 0
    for root in range(n_atoms):
        if molecules[root] >= 0:
            continue
        molecules[root] = count
        front = len(visits)
        visits.append((root, -1))
        while front < len(visits):
            atom = visits[front][0]
            front += 1
            for other in neighbours.get(atom, []):
                if molecules[other] < 0:
                    molecules[other] = count
                    visits.append((other, atom))
        count += 1
    return np.array(visits, dtype=np.int64).reshape(-1, 2), molecules


def torsions(bonds: Integers) -> Integers:
    """Every chain i-j-k-l of three bonds, once per direction-less chain, (torsions, 4)."""
    neighbours = adjacency(bonds)
    quads = [
        (i, j, k, end)
        for j, k in bonds.tolist()
        for i in neighbours[j]
        for end in neighbours[k]
        if i != k and end != j and i != end
    ]
    return np.array(quads, dtype=np.int64).reshape(-1, 4)


def by_type(chains: Integers, symbols: Sequence[str]) -> dict[str, Integers]:
    """The chains of atoms grouped by their elements, named from the heavier end, the largest group first.

    Args:
        chains: bonds (n, 2) or torsions (n, 4).
        symbols: element symbol of each atom.
    """
    groups: dict[str, list[list[int]]] = defaultdict(list)
    for chain in chains.tolist():
        names = [symbols[atom] for atom in chain]
        groups["–".join(min(names, names[::-1], key=hydrogen_last))].append(chain)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return {name: np.array(group, dtype=np.int64) for name, group in ordered}


def hydrogen_last(symbols: Iterable[str]) -> list[tuple[bool, str]]:
    """The order of elements in names: the alphabet, then hydrogen, as in O–H."""
    return [(symbol == "H", symbol) for symbol in symbols]


def formula(symbols: Sequence[str]) -> str:
    """The sum formula in Hill's order: C, H, then the alphabet."""
    counts = Counter(symbols)
    first = [symbol for symbol in ("C", "H") if "C" in counts and symbol in counts]
    order = first + sorted(set(counts) - set(first))
    return "".join(f"{symbol}{counts[symbol] if counts[symbol] > 1 else ''}" for symbol in order)


def composition(symbols: Sequence[str], molecules: Integers) -> str:
    """What the box holds, as `32 × C2H6O`, the most frequent molecule first."""
    members: dict[int, list[str]] = defaultdict(list)
    for symbol, molecule in zip(symbols, molecules.tolist(), strict=True):
        members[molecule].append(symbol)
    kinds = Counter(formula(found) for found in members.values())
    return ", ".join(f"{count} × {name}" if count > 1 else name for name, count in kinds.most_common())
