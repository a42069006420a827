"""Sorts bonds by their elements, and molecules by their formulas."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from so3k_md.analysis.geometry import Array, Flags, Integers, minimum_image


def lacks_bonds(bonds: Integers, residues: Integers) -> Flags:
    """Atoms without a bond in a residue of several atoms, (atoms,).

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


def make_whole(
    positions: Array, cells: Array | None, pbc: tuple[bool, bool, bool], parent: Integers
) -> Array:
    """Positions with every molecule in one piece: each atom at the image nearest to its parent.

    Args:
        positions: (frames, atoms, 3), Å.
        cells: (frames, 3, 3), Å, or None.
        pbc: which of the three cell vectors are periodic.
        parent: of `so3k_md.structure.bonds.trees`, (atoms,).
    """
    # `structure.images.unwrap` for all frames at once: frame by frame small molecules take 70 times as long
    steps = positions - positions[:, parent]
    moves = minimum_image(steps, cells, pbc) - steps
    for _ in range(len(parent).bit_length()):  # each pass doubles the number of links summed
        moves, parent = moves + moves[:, parent], parent[parent]
    return positions + moves


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
