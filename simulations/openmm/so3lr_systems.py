"""The systems of so3lr.py and lammps/in.so3lr: what they are made of, and how.

    python simulations/openmm/so3lr_systems.py --output simulations/lammps

writes the data file and the topology that LAMMPS and its analysis read.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import ase.io
import numpy as np
from ase.build import molecule
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray
from openmm import app, unit
from openmm.app.internal.unitcell import computeLengthsAndAngles

from so3k_md.engines.openmm.topology import nm_positions, topology_of
from so3k_md.files import atomic

DATA = Path(__file__).parents[1] / "data" / "so3lr"
CLEARANCE = 0.26  # nm: a water with an atom closer to the solute than this makes room for it
TYPES = ("H", "C", "N", "O")  # of LAMMPS, from 1
FOR_LAMMPS = ("water", "alanine", "alanine_water", "acetate_water")


class Built(NamedTuple):
    """A system, and how it is run."""

    topology: app.Topology
    positions_nm: NDArray[np.float64]  # (atoms, 3)
    ensemble: str  # nve, nvt or npt
    charges: dict[str, float] | None  # e, by residue, where each molecule keeps its charge


def water() -> Built:
    """216 waters in a cube of 18.7 Å."""
    return pdb("water.pdb")._replace(ensemble="npt")


def alanine() -> Built:
    """Alanine dipeptide, N-acetyl-alanine-N′-methylamide, by itself."""
    return pdb("alanine.pdb")


def alanine_water() -> Built:
    """The same in the middle of `water`."""
    return solvated(alanine())


def acetate_water() -> Built:
    """An acetate ion in `water`, against the uniform background that neutralises the cell."""
    ion = molecule("CH3COOH")
    del ion[[atom.index for atom in ion if atom.symbol == "H"][0]]  # the acidic one comes first
    topology = topology_of(ion)
    for residue in topology.residues():
        residue.name = "ACT"
    return solvated(Built(topology, nm_positions(ion), "nvt", None))._replace(charges={"ACT": -1.0})


def crambin_water() -> Built:
    """Crambin, which is neutral as a whole, with 2,043 waters."""
    atoms = ase.io.read(DATA / "crambin_water.xyz")
    return Built(topology_of(atoms), nm_positions(atoms), "nvt", None)


SYSTEMS: dict[str, Callable[[], Built]] = {
    build.__name__: build for build in (water, alanine, alanine_water, acetate_water, crambin_water)
}


def pdb(name: str) -> Built:
    """A file of data/so3lr, as it is."""
    file = app.PDBFile(str(DATA / name))
    return Built(file.topology, positions_of(file), "nvt", None)


def positions_of(source: app.PDBFile | app.Modeller) -> NDArray[np.float64]:
    """(atoms, 3), nm."""
    return np.array(source.positions.value_in_unit(unit.nanometer), dtype=float)


def solvated(solute: Built) -> Built:
    """The solute in the middle of `water`, in which the waters that it would touch are left out."""
    liquid = water()
    box_nm = np.diag(liquid.topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer))
    centred = solute.positions_nm - solute.positions_nm.mean(axis=0) + 0.5 * box_nm
    apart = liquid.positions_nm[:, None] - centred
    apart -= box_nm * np.round(apart / box_nm)
    close = np.linalg.norm(apart, axis=-1).min(axis=1) < CLEARANCE
    both = app.Modeller(solute.topology, centred * unit.nanometer)
    first = both.topology.getNumAtoms()
    both.add(liquid.topology, liquid.positions_nm * unit.nanometer)
    both.topology.setPeriodicBoxVectors(liquid.topology.getPeriodicBoxVectors())
    waters = list(both.topology.residues())[-liquid.topology.getNumResidues() :]
    both.delete([one for one in waters if any(close[atom.index - first] for atom in one.atoms())])
    return Built(both.topology, positions_of(both), "npt", None)


def lammps_data(built: Built, title: str) -> str:
    """The text of a data file, `atom_style molecular`; a molecule by itself gets a wide box."""
    symbols = [atom.element.symbol for atom in built.topology.atoms()]
    molecules = np.zeros(len(symbols), dtype=int)
    for number, bonded in enumerate(components(built.topology), start=1):
        molecules[bonded] = number
    r = 10.0 * built.positions_nm
    vectors = built.topology.getPeriodicBoxVectors()
    if vectors is None:
        low, high = r.min(axis=0) - 20.0, r.max(axis=0) + 20.0
    else:
        low, high = np.zeros(3), 10.0 * np.array(computeLengthsAndAngles(vectors)[:3])
    lines = [title, "", f"{len(symbols)} atoms", f"{len(TYPES)} atom types", ""]
    lines += [f"{a:.3f} {b:.3f} {x}lo {x}hi" for a, b, x in zip(low, high, "xyz", strict=True)]
    lines += ["", "Masses", ""]
    lines += [
        f"{k} {atomic_masses[atomic_numbers[one]]:.3f}  # {one}" for k, one in enumerate(TYPES, start=1)
    ]
    lines += ["", "Atoms  # molecular", ""]
    rows = zip(molecules, symbols, r, strict=True)
    lines += [
        f"{k} {number} {TYPES.index(symbol) + 1} {x:.3f} {y:.3f} {z:.3f}"
        for k, (number, symbol, (x, y, z)) in enumerate(rows, start=1)
    ]
    return "\n".join(lines) + "\n"


def components(topology: app.Topology) -> list[list[int]]:
    """The atoms of each molecule, by bonds, in the order of their first atoms."""
    neighbors: list[list[int]] = [[] for _ in range(topology.getNumAtoms())]
    for one, other in topology.bonds():
        neighbors[one.index].append(other.index)
        neighbors[other.index].append(one.index)
    found, seen = [], set()
    for start in range(len(neighbors)):
        if start in seen:
            continue
        queue, members = [start], []
        seen.add(start)
        while queue:
            members.append(queue.pop())
            new = [k for k in neighbors[members[-1]] if k not in seen]
            seen.update(new)
            queue += new
        found.append(members)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for data.NAME and NAME.pdb")
    folder = parser.parse_args().output
    for name in FOR_LAMMPS:
        built = SYSTEMS[name]()
        title = f"{SYSTEMS[name].__doc__.splitlines()[0]} Made by simulations/openmm/so3lr_systems.py"
        with atomic(folder / f"data.{name}") as temporary:
            temporary.write_text(lammps_data(built, title))
        with atomic(folder / f"{name}.pdb") as temporary, open(temporary, "w") as file:
            app.PDBFile.writeFile(built.topology, built.positions_nm * unit.nanometer, file, keepIds=True)


if __name__ == "__main__":
    main()
