"""Refuses bonds between atoms of the model and other atoms, unless link atoms cap them."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from openmm import app

from so3k_md.errors import So3kError

LINK_NM = 0.109  # C–H
SHOWN = 3  # largest number of bonds named in a message


class CutBond(NamedTuple):
    """A bond of which the model describes one atom only."""

    inside: app.topology.Atom
    outside: app.topology.Atom


class Boundary(NamedTuple):
    """The atoms that a model describes, and the link atoms that cap their bonds to other atoms."""

    topology: app.Topology  # with the bonds of link atoms
    cut: list[CutBond]
    links: list[app.topology.Atom]  # one for each cut bond, or an empty list


def boundary_of(topology: app.Topology, rows: Sequence[int], allow_cut_bonds: bool) -> Boundary:
    """The boundary of the atoms described.

    Args:
        topology: with the link atoms of openmm-ml, if there are any.
        rows: the atoms described, link atoms among them (atoms,).
        allow_cut_bonds: the caller has treated the cut bonds.

    Raises:
        So3kError: a cut bond that no link atom caps.
    """
    cut = cut_bonds(topology, rows)
    links = link_atoms(topology, rows, len(cut))
    if cut and not links and not allow_cut_bonds:
        named = ", ".join(f"{label(bond.inside)} and {label(bond.outside)}" for bond in cut[:SHOWN])
        more = f" and {len(cut) - SHOWN} more" if len(cut) > SHOWN else ""
        raise So3kError(
            f"the model describes only one atom of {len(cut)} bond(s), which would break: {named}{more}; "
            "describe whole molecules, or cap the bonds with link atoms: those of createMixedSystem of "
            "openmm-ml 1.8, or your own and allow_cut_bonds=True"
        )
    if links:
        topology = copy.deepcopy(topology)
        atoms = list(topology.atoms())
        for bond, link in zip(cut, links, strict=True):
            topology.addBond(atoms[bond.inside.index], atoms[link.index])
    return Boundary(topology, cut, links)


def cut_bonds(topology: app.Topology, rows: Sequence[int]) -> list[CutBond]:
    """The bonds with one end among the atoms described, in the order of the topology."""
    inside = set(rows)
    ends = ((first, second) for first, second in topology.bonds())
    cut = [(a, b) for a, b in ends if (a.index in inside) != (b.index in inside)]
    return [CutBond(a, b) if a.index in inside else CutBond(b, a) for a, b in cut]


def link_atoms(topology: app.Topology, rows: Sequence[int], n_cut: int) -> list[app.topology.Atom]:
    """The link atoms that openmm-ml 1.8 appends, in the order of the cut bonds; empty if there are none.

    They are hydrogens named V0, V1, …, each in a residue of the same name, without bonds. The System cannot
    identify them: if openmm-ml interpolates, it passes an empty one.
    """
    described = set(rows)
    last = list(topology.atoms())[topology.getNumAtoms() - n_cut :] if n_cut else []
    named = all(
        atom.element is not None
        and atom.element.atomic_number == 1
        and atom.name == atom.residue.name == f"V{k}"
        and atom.index in described
        for k, atom in enumerate(last)
    )
    return last if named else []


def with_links(positions_nm: NDArray[np.float64], boundary: Boundary) -> NDArray[np.float64]:
    """Positions of the atoms and of their link atoms, nm.

    Args:
        positions_nm: with or without those of link atoms, (atoms, 3).
        boundary: the cut bonds and their link atoms.
    """
    if not boundary.links or len(positions_nm) + len(boundary.links) != boundary.topology.getNumAtoms():
        return positions_nm
    added = [positions_nm]
    for bond in boundary.cut:
        start = positions_nm[bond.inside.index]
        along = positions_nm[bond.outside.index] - start
        added.append((start + LINK_NM * along / np.linalg.norm(along))[None])
    return np.concatenate(added)


def label(atom: app.topology.Atom) -> str:
    """The name of an atom in messages, such as "CA of ALA 2 (atom 8)"."""
    return f"{atom.name} of {atom.residue.name} {atom.residue.id} (atom {atom.index})"
