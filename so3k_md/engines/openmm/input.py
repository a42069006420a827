"""Reads the input of an OpenMM System: topologies with usable boxes and bonds, and positions."""

import copy
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import openmm
from ase import Atoms
from numpy.typing import ArrayLike, NDArray
from openmm import app, unit

from so3k_md.engines.openmm.topology import nm_positions, topology_of
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.structure.bonds import bond_radii, guess_bonds
from so3k_md.structure.cells import check_cell, is_dummy
from so3k_md.units import NM_IN_ANGSTROM

Floats = NDArray[np.float64]

OPENMM_BOX = 20.0 * np.eye(3)  # Å, the box of each System for which none was set
BOX_REMEDY = "set the right one by box_nm or topology.setPeriodicBoxVectors, None for an open system"


class Placed(NamedTuple):
    """A topology with bonds and box, and the positions of its atoms."""

    topology: app.Topology
    positions_nm: Floats | None  # (atoms, 3)


def structure_of(structure: Any, positions_nm: ArrayLike | None, box_nm: ArrayLike | None) -> Placed:
    """The topology and positions of a structure, with guessed bonds where they are missing.

    Args:
        structure: a topology; anything with a topology and positions, such as a PDBFile or a Modeller; ASE
            atoms; or elements.
        positions_nm: of all atoms, (n, 3), nm; used instead of those of the structure.
        box_nm: periodic box vectors (3, 3), nm; used instead of those of the structure.

    Raises:
        So3kError: an unusable structure, or positions that do not fit.
    """
    if isinstance(structure, app.Topology):
        topology, own = structure, None
    elif isinstance(structure, Atoms):
        topology, own = topology_of(structure), nm_positions(structure)
    elif hasattr(structure, "topology") and hasattr(structure, "positions"):
        topology, own = structure.topology, structure.positions
    else:
        topology, own = topology_of(structure), None
    if positions_nm is None:
        positions_nm = own
    if box_nm is not None:
        topology = copy.deepcopy(topology)
        topology.setPeriodicBoxVectors(np.asarray(box_nm, dtype=float) * unit.nanometer)
        check_box(topology, box_of(topology), "box_nm")
    points = None if positions_nm is None else positions_in_nm(positions_nm, topology.getNumAtoms())
    topology = without_dummy_box(topology)
    return Placed(topology if points is None else with_bonds(topology, points), points)


def positions_in_nm(positions: Any, n_atoms: int) -> Floats:
    """Positions (n_atoms, 3), nm, from numbers or quantities with OpenMM's units; or a refusal."""
    points = plain_nm(positions)
    if points.shape != (n_atoms, 3):
        raise So3kError(
            f"positions_nm has shape {points.shape}: give those of all {n_atoms} atoms, (n, 3), nm"
        )
    return points


def plain_nm(positions: Any) -> Floats:
    """Positions without OpenMM's units, nm."""
    if unit.is_quantity(positions):
        positions = positions.value_in_unit(unit.nanometer)
    return np.array(positions, dtype=float)


def numbers_of(topology: app.Topology) -> NDArray[np.int64]:
    """Atomic numbers (atoms,), 0 for virtual sites."""
    atoms = sorted(topology.atoms(), key=lambda atom: atom.index)
    return np.array([atom.element.atomic_number if atom.element else 0 for atom in atoms], dtype=np.int64)


def box_of(owner: app.Topology) -> Floats | None:
    """Lattice vectors of a topology as rows (3, 3), Å, or None."""
    box = owner.getPeriodicBoxVectors()
    return None if box is None else np.array(box.value_in_unit(unit.angstrom), dtype=float)


def without_dummy_box(topology: app.Topology) -> app.Topology:
    """The topology, without the cube of 1 Å by which PDB files state that there is no cell."""
    if not is_dummy(box_of(topology)):
        return topology
    warnings.warn(
        "the box of the topology is the cube of 1 Å that PDB files contain if there is no cell (CRYST1 of "
        "entries from NMR or electron microscopy): the system is treated as open; to set a box, use box_nm",
        So3kWarning,
        stacklevel=4,
    )
    topology = copy.deepcopy(topology)
    topology.setPeriodicBoxVectors(None)
    return topology


def check_box(topology: app.Topology, box: Floats | None, where: str) -> None:
    """Refuse a box that does not fit the atoms.

    Args:
        topology: its elements.
        box: (3, 3), Å, or None.
        where: name of the owner of the box in messages.

    Raises:
        So3kError: see `structure.cells.cell_fault`.
    """
    if box is not None:
        check_cell(numbers_of(topology), box, True, where, BOX_REMEDY)


def cell_of(system: openmm.System, topology: app.Topology) -> Floats | None:
    """Lattice vectors as rows (3, 3), Å, of the topology or of a periodic System; None for an open system.

    Raises:
        So3kError: a box that does not fit the atoms.
    """
    own = box_of(topology)
    vectors = [vector.value_in_unit(unit.angstrom) for vector in system.getDefaultPeriodicBoxVectors()]
    default = np.array(vectors, dtype=float)
    if own is not None:
        check_box(topology, own, "the topology")
        return own
    if system.usesPeriodicBoundaryConditions():
        check_box(topology, default, "the System")
        return default
    if not np.allclose(default, OPENMM_BOX) and not is_dummy(default):
        warnings.warn(
            f"the System has a box, {np.round(np.diag(default), 2).tolist()} Å, but neither the topology has "
            "one nor is any force periodic: so3k-md treats the system as open and ignores the box; to make "
            "it periodic, use topology.setPeriodicBoxVectors",
            So3kWarning,
            stacklevel=4,
        )
    return None


def bare_atoms(topology: app.Topology) -> list[app.topology.Atom]:
    """Atoms whose bonds may be missing: non-metals without bonds in a residue that has other atoms."""
    bonded = {atom.index for bond in topology.bonds() for atom in bond}
    size = Counter(atom.residue.index for atom in topology.atoms() if atom.element is not None)
    radii = bond_radii(numbers_of(topology))
    return [
        atom
        for atom in topology.atoms()
        if atom.index not in bonded and radii[atom.index] > 0 and size[atom.residue.index] > 1
    ]


def with_bonds(topology: app.Topology, positions_nm: Floats) -> app.Topology:
    """The topology, with bonds guessed for its bare atoms; see `structure.bonds`.

    Args:
        topology: not changed.
        positions_nm: of all its atoms, (n, 3), nm.
    """
    bare = {atom.index for atom in bare_atoms(topology)}
    if not bare:
        return topology
    box = box_of(topology)
    guess = guess_bonds(numbers_of(topology), positions_nm * NM_IN_ANGSTROM, box, box is not None)
    bonds = [pair for pair in guess.of_molecules.tolist() if bare.intersection(pair)]
    if not bonds:
        return topology
    topology = copy.deepcopy(topology)
    atoms = sorted(topology.atoms(), key=lambda atom: atom.index)
    for first, second in bonds:
        topology.addBond(atoms[first], atoms[second])
    return topology


def refuse_bare(topology: app.Topology, rows: Sequence[int], grouped: bool, fragmented: bool) -> None:
    """Refuse atoms without bonds if the energy depends on the molecules.

    A topology without any bonds is accepted here; `groups.molecules_of` makes an open system one group.

    Args:
        topology: of a structure without positions, so that no bond could be guessed.
        rows: the atoms described (atoms,).
        grouped: whether molecules are the groups of a non-local model.
        fragmented: whether molecules are fragments of charge.

    Raises:
        So3kError: names a residue and the remedy.
    """
    if (fragmented or grouped) and topology.getNumBonds() and (fault := lack_of_bonds(topology, rows)):
        raise So3kError(fault)


def warn_of_bare(topology: app.Topology, rows: Sequence[int]) -> None:
    """Warn of atoms without bonds, which barostats and trajectories treat as molecules."""
    if fault := lack_of_bonds(topology, rows):
        warnings.warn(f"{fault}; or pass keep_molecules=False if that is intended", So3kWarning, stacklevel=4)


def lack_of_bonds(topology: app.Topology, rows: Sequence[int]) -> str | None:
    """A text that names atoms without bonds and gives the remedy; None if there are none."""
    described = set(rows)
    bare = [atom for atom in bare_atoms(topology) if atom.index in described]
    if not bare:
        return None
    residues = list(dict.fromkeys(f"{atom.residue.name} {atom.residue.id}" for atom in bare))
    more = f" and {len(residues) - 1} other residues" if len(residues) > 1 else ""
    return (
        f"{len(bare)} atoms of residue {residues[0]}{more} have no bonds, so that each is a separate "
        "molecule: give positions_nm or the PDBFile itself, from which bonds are guessed, or add the bonds"
    )
