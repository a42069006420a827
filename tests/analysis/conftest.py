"""Ethanol that moves in a known way, written as both engines write it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import mdtraj as md
import numpy as np
import pytest

SYMBOLS = ("C", "O", "H", "H", "H", "C", "H", "H", "H")
BONDS = ((0, 5), (0, 1), (0, 3), (0, 4), (1, 2), (5, 6), (5, 7), (5, 8))
PLACES = np.array(
    [[0.01, -0.57, 0.0], [1.3, 0.05, 0.0], [1.25, 1.0, 0.1], [-0.05, -1.2, 0.88], [-0.05, -1.2, -0.88]]
    + [[-1.15, 0.38, 0.0], [-1.1, 1.0, 0.88], [-1.1, 1.0, -0.88], [-2.1, -0.15, 0.0]]
)


class Run(NamedTuple):
    """Positions over time and the files that hold them."""

    positions: np.ndarray  # (frames, atoms, 3), Å
    top: Path  # PDB with bonds
    folder: Path

    def write(self, kind: str, positions: np.ndarray | None = None, cell: np.ndarray | None = None) -> Path:
        """The trajectory as dcd, xtc, h5 or dump."""
        places = self.positions if positions is None else positions
        path = self.folder / f"run.{kind}"
        if kind == "dump":
            path.write_text(dump_text(places, cell))
            return path
        time = 0.5 * np.arange(len(places))
        trajectory = md.Trajectory(places / 10, md.load_topology(str(self.top)), time=time)
        if cell is not None:
            trajectory.unitcell_vectors = np.repeat(cell[None] / 10, len(places), axis=0)
        trajectory.save(str(path))
        return path


def dump_text(positions: np.ndarray, cell: np.ndarray | None = None, columns: str = "xu yu zu") -> str:
    """A LAMMPS dump every 20 steps, atoms in reverse order; the cell is lower triangular."""
    types = {"C": 1, "H": 2, "O": 3}
    text = []
    for frame, places in enumerate(positions):
        if cell is None:
            bounds, flags = [f"{-20.0} {20.0}"] * 3, "ff ff ff"
        else:
            (a, _, _), (xy, b, _), (xz, yz, c) = cell
            low = [min(0, xy, xz, xy + xz), min(0, yz), 0]
            high = [a + max(0, xy, xz, xy + xz), b + max(0, yz), c]
            tilts = [xy, xz, yz]
            bounds = [f"{x} {y} {t}" for x, y, t in zip(low, high, tilts, strict=True)]
            flags = "xy xz yz pp pp pp"
        rows = [
            f"{k + 1} {types[SYMBOLS[k]]} {SYMBOLS[k]} {x:.6f} {y:.6f} {z:.6f}"
            for k, (x, y, z) in reversed(list(enumerate(places)))
        ]
        text += ["ITEM: TIMESTEP", str(20 * frame), "ITEM: NUMBER OF ATOMS", str(len(places))]
        text += [f"ITEM: BOX BOUNDS {flags}", *bounds, f"ITEM: ATOMS id type element {columns}", *rows]
    return "\n".join(text) + "\n"


@pytest.fixture
def make_top(tmp_path: Path) -> Callable[[bool], Path]:
    """A PDB of ethanol, with or without its bonds."""

    def make(bonded: bool) -> Path:
        topology = md.Topology()
        residue = topology.add_residue("ETH", topology.add_chain())
        atoms = [
            topology.add_atom(f"{symbol}{k}", md.element.Element.getBySymbol(symbol), residue)
            for k, symbol in enumerate(SYMBOLS)
        ]
        for i, j in BONDS if bonded else ():
            topology.add_bond(atoms[i], atoms[j])
        path = tmp_path / f"top{'' if bonded else '_bare'}.pdb"
        md.Trajectory(PLACES[None] / 10, topology).save_pdb(str(path))
        return path

    return make


@pytest.fixture
def run(tmp_path: Path, make_top: Callable[[bool], Path]) -> Run:
    """Forty frames of ethanol that shakes by 0.03 Å and tumbles."""
    rng = np.random.default_rng(1)
    angles = np.linspace(0, 2, 40)
    turns = np.array([[[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]] for a in angles])
    shaken = PLACES + rng.normal(scale=0.03, size=(40, 9, 3))
    return Run(shaken @ turns, make_top(True), tmp_path)
