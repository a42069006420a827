"""Determines groups of non-local attention in OpenMM, and the links that keep them whole in a box."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from openmm import app

from so3k_md.errors import So3kError
from so3k_md.needs import Needs
from so3k_md.structure.bonds import trees
from so3k_md.structure.groups import announce, grouping, lattice_waves
from so3k_md.structure.images import spanning_tree

Ints = NDArray[np.int64]


class Linked(NamedTuple):
    """Groups of atoms and, if images matter, the links by which they are unwrapped."""

    group: Ints  # (atoms,), from 0
    parent: Ints  # (atoms,), the parent of each atom in the tree of its group
    bonds: Ints  # (bonds, 2), used to detect groups bonded to their own periodic image


def linked_groups(
    needs: Needs,
    topology: app.Topology,
    rows: Sequence[int],
    groups: str | ArrayLike,
    max_group: int,
    cell: NDArray[np.float64] | None,
    positions: NDArray[np.float64] | None,
) -> Linked:
    """The groups of the atoms that a non-local model describes, and their links in a periodic box.

    Links follow the bonds. A group that bonds do not connect is linked by its shortest distances. One group
    of all atoms has no links; its atoms are used in the given images.

    Args:
        needs: of the model, sphc or efa.
        topology: its bonds define the molecules.
        rows: the atoms described (atoms,).
        groups: auto, all, or a whole number for each atom (atoms,).
        max_group: largest group that sphc accepts, atoms.
        cell: of a periodic system, (3, 3), Å; None for an open one.
        positions: of all atoms of the topology, (n, 3), Å; None if they are not known.

    Raises:
        So3kError: no groups are given and none can be derived, one is too large for sphc, or neither bonds
            nor positions connect one across the boundary.
    """
    bonds = bonds_among(topology, rows)
    named, mode = (None, groups) if isinstance(groups, str) else (np.asarray(groups), "auto")
    announce(needs, mode)
    if named is None and mode == "auto" and not lattice_waves(needs):
        named = molecules_of(bonds, len(rows), cell is not None)
    where = "the system" if isinstance(groups, str) else "groups"
    group, linked = grouping(needs, named, len(rows), cell is not None, mode, where, max_group)
    if cell is None or not linked:
        return Linked(group, np.arange(len(rows)), bonds[:0])
    bonds = bonds[group[bonds[:, 0]] == group[bonds[:, 1]]]
    parent, tree = trees(len(rows), bonds)
    disconnected = trees_per_group(tree, group) > 1
    if disconnected.any():
        if positions is None:
            raise So3kError(not_connected(int(disconnected.argmax()), group, rows))
        links = spanning_tree(positions[list(rows)], cell, np.full(3, True), group)
        parent = np.where(disconnected[group], links, parent)
    return Linked(group, parent, bonds)


def molecules_of(bonds: Ints, n_atoms: int, periodic: bool) -> Ints | None:
    """The molecule of each atom, (atoms,); None for an open system without bonds, which is one group.

    Args:
        bonds: pairs of atoms (bonds, 2).
        n_atoms: number of atoms.
        periodic: whether there is a box.

    Raises:
        So3kError: a periodic system without bonds.
    """
    if len(bonds) or n_atoms == 1:
        return trees(n_atoms, bonds)[1]
    if periodic:
        raise So3kError(
            "the topology has no bonds, which define the groups of non-local attention: add them (CONECT "
            "records, or topology.createStandardBonds()), or give a group number for each atom by groups"
        )
    return None


def bonds_among(topology: app.Topology, rows: Sequence[int]) -> Ints:
    """Bonds between the atoms described, as indices into `rows` (bonds, 2)."""
    place = {row: k for k, row in enumerate(rows)}
    pairs = [(place.get(first.index), place.get(second.index)) for first, second in topology.bonds()]
    return np.array([pair for pair in pairs if None not in pair], dtype=np.int64).reshape(-1, 2)


def trees_per_group(tree: Ints, group: Ints) -> Ints:
    """Number of trees in each group; each tree lies in one group."""
    return np.bincount(group[np.unique(tree, return_index=True)[1]])


def not_connected(number: int, group: Ints, rows: Sequence[int]) -> str:
    """Why a group of a periodic system cannot be used, with the remedy."""
    members = np.asarray(rows)[group == number]
    return (
        f"bonds do not connect the group of atom {members[0]} ({len(members)} atoms), so that the group "
        "cannot be unwrapped: add the bonds to the topology, use a group for each bonded molecule "
        '(groups="auto"), or give positions_nm'
    )


def describe(kind: str, group: Ints) -> str:
    """One line on the non-local attention of a system."""
    sizes = np.bincount(group)
    return f"non-local attention: {kind}, {len(sizes)} groups, the largest of {sizes.max()} atoms"
