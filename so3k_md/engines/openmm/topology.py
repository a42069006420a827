"""Builds OpenMM topologies of ASE atoms or elements, with guessed bonds and boxes in OpenMM's form."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import ArrayLike, NDArray
from openmm import app, unit
from openmm.app.internal.unitcell import reducePeriodicBoxVectors

from so3k_md.errors import So3kError
from so3k_md.structure.bonds import guess_bonds
from so3k_md.structure.cells import check_cell, is_dummy
from so3k_md.structure.contacts import warn_of_close_pair
from so3k_md.units import NM_IN_ANGSTROM


def topology_of(structure: Atoms | Sequence[int | str]) -> app.Topology:
    """A topology with one residue for each molecule, and the box of a periodic structure.

    Elements alone have no positions, hence no bonds.

    Args:
        structure: ASE atoms, or atomic numbers or symbols.

    Raises:
        So3kError: an unknown element, or a structure with one or two periodic axes.
    """
    if not isinstance(structure, Atoms):
        return _assemble(_numbers(structure), [], np.zeros(len(structure), dtype=int))
    if structure.pbc.all() and is_dummy(structure.cell.array):
        # a dummy cell: bonds are guessed as in an open structure, and the caller checks the box
        guess = guess_bonds(structure.numbers, structure.positions)
    else:
        if structure.pbc.all():
            check_cell(
                structure.numbers, structure.cell.array, True, "the structure", "correct it, or set pbc"
            )
        guess = guess_bonds(structure.numbers, structure.positions, structure.cell.array, structure.pbc)
    # networks such as crystals are no molecules, so that a barostat scales their atoms one by one
    topology = _assemble(structure.numbers.tolist(), guess.of_molecules.tolist(), guess.molecule)
    if structure.pbc.any():
        box_nm = _rotated_cell(structure)[0] / NM_IN_ANGSTROM
        topology.setPeriodicBoxVectors(reducePeriodicBoxVectors(box_nm * unit.nanometer))
    return topology


def nm_positions(atoms: Atoms) -> NDArray[np.float64]:
    """Positions (atoms, 3), nm, rotated with the cell into OpenMM's form: a along x, b in the xy plane."""
    rotation = _rotated_cell(atoms)[1] if atoms.pbc.any() else np.eye(3)
    return atoms.positions @ rotation / NM_IN_ANGSTROM


def warn_of_close(
    topology: app.Topology,
    positions_nm: ArrayLike,
    cell: ArrayLike | None,
    rows: Sequence[int] | None = None,
) -> None:
    """Warn of the closest pair of atoms if it is closer than pairs in training data.

    Args:
        topology: its elements.
        positions_nm: of all its atoms, (n, 3), nm.
        cell: of the System, also if the topology has none, (3, 3), Å; None for an open system.
        rows: the atoms to check; all by default.
    """
    atoms = sorted(topology.atoms(), key=lambda atom: atom.index)
    chosen = [row for row in (range(len(atoms)) if rows is None else rows) if atoms[row].element is not None]
    numbers = [atoms[row].element.atomic_number for row in chosen]
    points = np.asarray(positions_nm, dtype=float)[chosen] * NM_IN_ANGSTROM
    warn_of_close_pair(numbers, points, cell, cell is not None, chosen, stacklevel=4)


def _assemble(numbers: list[int], bonds: list[list[int]], molecules: NDArray[np.int64]) -> app.Topology:
    """A topology in the order of the atoms; a single residue if the atoms of molecules are interleaved."""
    if np.any(np.diff(molecules) < 0) or np.any(np.diff(molecules) > 1):
        molecules = np.zeros_like(molecules)
    topology = app.Topology()
    chain = topology.addChain()
    atoms: list[app.topology.Atom] = []
    counts: defaultdict[int, int] = defaultdict(int)
    for k, number in enumerate(numbers):
        if k == 0 or molecules[k] != molecules[k - 1]:
            residue = topology.addResidue("MOL", chain)
            counts.clear()
        element = app.Element.getByAtomicNumber(int(number))
        counts[number] += 1
        atoms.append(topology.addAtom(f"{element.symbol}{counts[number]}", element, residue))
    for i, j in bonds:
        topology.addBond(atoms[i], atoms[j])
    return topology


def _numbers(elements: Sequence[int | str]) -> list[int]:
    numbers = [atomic_numbers.get(e, 0) if isinstance(e, str) else int(e) for e in elements]
    for element, number in zip(elements, numbers, strict=True):
        if not 0 < number <= 118:
            raise So3kError(f"{element!r} is not an element: give symbols or atomic numbers")
    return numbers


def _rotated_cell(atoms: Atoms) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The cell with a along x and b in the xy plane, and the rotation R with cell_rotated = cell R."""
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise So3kError(
            f"OpenMM is periodic along all axes or none, this structure has pbc {atoms.pbc.tolist()} and a "
            f"cell of rank {atoms.cell.rank}: pad the open axes with vacuum and set pbc to T T T"
        )
    cell = atoms.cell.array.copy()
    if np.linalg.det(cell) < 0:
        cell[2] *= -1  # the same lattice, right-handed
    # QR of the columns gives cell = L Q; signs make the diagonal of L positive
    q, r = np.linalg.qr(cell.T)
    signs = np.sign(np.diag(r))
    return (r.T * signs), q * signs
