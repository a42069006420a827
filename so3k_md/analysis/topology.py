"""The atoms of a system: elements, names, residues and bonds, from any topology that mdtraj reads."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mdtraj as md
import numpy as np

from so3k_md.analysis.formats.frames import Frames, Lines, kind_of
from so3k_md.analysis.formats.isolated import isolated_topology
from so3k_md.analysis.formats.plain import pdb_cell
from so3k_md.analysis.geometry import Array, Flags, Integers
from so3k_md.errors import So3kError
from so3k_md.structure.cells import is_dummy

HDF5 = (".h5", ".hdf5")
OWN_ATOMS = (".pdb", ".xyz", ".extxyz")  # trajectories that name their atoms themselves
NEAREST_DEUTERIUM = 0.5  # Å; a Drude particle, which mdtraj can read as deuterium, is nearer to its atom


class Topology(NamedTuple):
    """The particles of a topology, virtual sites included."""

    numbers: Integers  # (atoms,) atomic numbers, 0 for virtual sites
    symbols: tuple[str, ...]
    names: tuple[str, ...]  # of each atom in its residue
    residues: Integers  # (atoms,)
    bonds: Integers  # (bonds, 2)


def load_topology(path: Path, topology: Path | None, frames: Frames) -> Topology:
    """The atoms from a topology file, or from the trajectory itself.

    Raises:
        So3kError: no topology, or one that cannot be read.
    """
    if topology is None or topology == path:
        if frames.topology is not None:
            return of_mdtraj(path, lambda: from_json(frames.topology or ""))
        if frames.elements and kind_of(path) in OWN_ATOMS:
            return of_elements(path, frames.elements)
        if kind_of(path) not in OWN_ATOMS or path.suffix.lower() == ".gz":
            raise So3kError(
                f"{path} holds no topology: pass --top with a PDB or mmCIF file of the same atoms"
            )
    source = existing(topology or path)
    if source.suffix.lower() in HDF5:
        text = isolated_topology(source)
        return of_mdtraj(source, lambda: from_json(text))
    return of_mdtraj(source, lambda: md.load_topology(str(source)))


def existing(path: str | Path) -> Path:
    """The path of a file, checked to exist and not to be empty."""
    path = Path(path)
    if not path.is_file():
        raise So3kError(
            f"{path} {'is a folder' if path.is_dir() else 'does not exist'}: give the path of a file"
        )
    if path.stat().st_size == 0:
        raise So3kError(f"{path} is empty: the run wrote nothing; run it again")
    return path


def of_mdtraj(path: Path, read: Callable[[], Any]) -> Topology:
    """The atoms of an mdtraj topology; its exceptions become one-line errors."""
    try:
        with quiet_stdout():
            top = read()
            atoms = list(top.atoms)
            bonds = np.array([(a.index, b.index) for a, b in top.bonds], dtype=np.int64).reshape(-1, 2)
    except Exception as error:
        text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:120]
        raise So3kError(
            f"{path} cannot be read as a topology that mdtraj reads (PDB, mmCIF, HDF5): it is "
            f"truncated or of another kind ({text})"
        ) from error
    if not atoms:
        raise So3kError(f"{path} holds no atom: give the topology of this run")
    real = [atom.element is not None and atom.element.atomic_number > 0 for atom in atoms]
    return Topology(
        numbers=np.array([a.element.atomic_number if r else 0 for a, r in zip(atoms, real, strict=True)]),
        symbols=tuple(a.element.symbol if r else a.name for a, r in zip(atoms, real, strict=True)),
        names=tuple(atom.name for atom in atoms),
        residues=np.array([atom.residue.index for atom in atoms], dtype=np.int64),
        bonds=np.unique(np.sort(bonds, axis=1), axis=0),
    )


def of_elements(path: Path, elements: tuple[str, ...]) -> Topology:
    """Atoms that are known by their elements alone, all in one residue, without bonds."""
    try:
        found = [md.element.Element.getBySymbol(symbol) for symbol in elements]
    except KeyError as error:
        raise So3kError(
            f"{path} names the element {error.args[0]}, which does not exist: correct it"
        ) from error
    numbers = np.array([element.atomic_number for element in found], dtype=np.int64)
    symbols = tuple(element.symbol for element in found)
    none = np.zeros((0, 2), dtype=np.int64)
    return Topology(numbers, symbols, symbols, np.zeros(len(numbers), dtype=np.int64), none)


def from_json(text: str) -> Any:
    """The mdtraj topology of the JSON in an HDF5 trajectory."""
    found = json.loads(text)
    top = md.Topology()
    atoms = []
    for chain in found["chains"]:
        new_chain = top.add_chain()
        for residue in chain["residues"]:
            new_residue = top.add_residue(residue["name"], new_chain, resSeq=residue.get("resSeq"))
            for atom in residue["atoms"]:
                try:
                    element = md.element.get_by_symbol(atom["element"])
                except KeyError:
                    element = md.element.virtual
                atoms.append(top.add_atom(atom["name"], element, new_residue))
    for i, j in found["bonds"]:
        if i < 0 or j < 0:
            raise ValueError(f"a bond between atoms {i} and {j}")
        top.add_bond(atoms[i], atoms[j])
    return top


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """Silence file descriptor 1, on which C libraries print."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 1)
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def real_atoms(top: Topology, positions: Array) -> Flags:
    """Which particles are atoms, not virtual sites or Drude particles, (atoms,).

    mdtraj reads a Drude particle without an element as deuterium, but it is closer to an atom than deuterium.

    Args:
        top: the particles.
        positions: of one frame (atoms, 3), Å.
    """
    real: Flags = top.numbers > 0
    for atom in np.flatnonzero(np.array(top.symbols) == "D").tolist():
        mates = np.flatnonzero(real & (top.residues == top.residues[atom]))
        distance = np.linalg.norm(positions[mates[mates != atom]] - positions[atom], axis=1)
        if distance.min(initial=np.inf) < NEAREST_DEUTERIUM:
            real[atom] = False
    return real


def select(top: Topology, real: Flags) -> Topology:
    """The topology of the particles that are marked."""
    place = np.cumsum(real) - 1
    kept = real[top.bonds].all(axis=1)
    rows = np.flatnonzero(real).tolist()
    return Topology(
        top.numbers[real], tuple(top.symbols[k] for k in rows), tuple(top.names[k] for k in rows),
        top.residues[real], place[top.bonds[kept]].reshape(-1, 2),
    )  # fmt: skip


def topology_has_cell(topology: Path | None) -> bool:
    """Whether the topology is a PDB whose CRYST1 states a real cell."""
    if topology is None or kind_of(topology) != ".pdb":
        return False
    for line in Lines(topology):
        if line.startswith(b"CRYST1"):
            cell = pdb_cell(line.decode("utf-8", errors="replace"))
            return cell is not None and bool(np.isfinite(cell).all()) and not is_dummy(cell)
        if line.startswith((b"ATOM", b"HETATM")):
            return False
    return False
