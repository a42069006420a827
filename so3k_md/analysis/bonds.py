"""The bond graph: guessed where the topology has none, and what follows from it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from so3k_md.analysis.contacts import close_pairs
from so3k_md.analysis.geometry import NOT_PERIODIC, Array, Flags, Integers, minimum_image
from so3k_md.structure.bonds import bond_radii, bonded


def guess_bonds(
    positions: Array,
    numbers: Integers,
    cell: Array | None = None,
    pbc: tuple[bool, bool, bool] = NOT_PERIODIC,
    lacking: Flags | None = None,
) -> Integers:
    """Bonds of one structure by `so3k_md.structure.bonds`, (bonds, 2) with i < j.

    Args:
        positions: (atoms, 3), Å.
        numbers: atomic numbers (atoms,).
        cell: rows are the cell vectors (3, 3), Å, or None.
        pbc: which of the three cell vectors are periodic.
        lacking: atoms whose bonds are wanted (atoms,); None for all.
    """
    radii = bond_radii(numbers)
    wanted = np.ones(len(radii), dtype=bool) if lacking is None else lacking
    if not radii[wanted].any():
        return np.zeros((0, 2), dtype=np.int64)
    cells = None if cell is None else cell[None]
    close = close_pairs(positions[None], cells, pbc, cutoff=2 * float(radii.max()))
    found = bonded(radii[close.i], radii[close.j], close.distance) & (wanted[close.i] | wanted[close.j])
    return np.stack([close.i[found], close.j[found]], axis=1)


def lacks_bonds(bonds: Integers, residues: Integers) -> Flags:
    """Which atoms have no bond although they are not alone in their residue, (atoms,).

    A topology without any bond lacks those of all atoms: its residues may be one atom each.

    Args:
        bonds: of the topology, (bonds, 2).
        residues: residue of each atom (atoms,).
    """
    if not len(bonds):
        return np.ones(len(residues), dtype=bool)
    alone = np.ones(len(residues), dtype=bool)
    alone[bonds.ravel()] = False
    _, place, sizes = np.unique(residues, return_inverse=True, return_counts=True)
    several: Flags = sizes[place] > 1
    return alone & several


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


def make_whole(positions: Array, cells: Array | None, pbc: tuple[bool, bool, bool], tree: Integers) -> Array:
    """Positions with every molecule in one piece: each atom at the image nearest to its parent.

    Args:
        positions: (frames, atoms, 3), Å.
        cells: (frames, 3, 3), Å, or None.
        pbc: which of the three cell vectors are periodic.
        tree: of `bond_tree`.
    """
    if cells is None:
        return positions
    whole = positions.copy()
    for atom, parent in tree.tolist():
        if parent >= 0:
            step = (whole[:, atom] - whole[:, parent])[:, None]
            whole[:, atom] = whole[:, parent] + minimum_image(step, cells, pbc)[:, 0]
    return whole


def by_type(bonds: Integers, symbols: Sequence[str]) -> dict[str, Integers]:
    """The bonds grouped by their elements, hydrogen last, the largest group first.

    Args:
        bonds: (n, 2).
        symbols: element symbol of each atom.
    """
    groups: dict[str, list[list[int]]] = defaultdict(list)
    for bond in bonds.tolist():
        groups[chain_name([symbols[atom] for atom in bond])].append(bond)
    return ordered(groups)


def chain_name(names: Sequence[str]) -> str:
    """The names of the atoms of a chain, from the end that comes first."""
    return "–".join(min(list(names), list(names)[::-1], key=hydrogen_last))


def ordered(groups: dict[str, list[list[int]]]) -> dict[str, Integers]:
    """Groups of chains of atoms as arrays, the largest first."""
    rows = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return {name: np.array(group, dtype=np.int64) for name, group in rows}


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
