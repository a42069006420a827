"""What the three forms of the Coulomb energy do to forces and pressure, and what they cost.

    so3k-md import so3lr -o so3lr.pt --dtype float64
    python benchmarks/coulomb.py so3lr.pt

A box of 216 waters and one water in the open, against `kspace`, which is exact: over the lattice of the box,
and over all pairs in the open. Times are of the process, for energies, forces and stress with lists at hand.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import ase.io
import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.units import GPa
from numpy.typing import NDArray

from so3k_md.cli import guarded
from so3k_md.engines.ase import So3kCalculator
from so3k_md.graph import COULOMB

WATER = Path(__file__).parents[1] / "simulations" / "data" / "so3lr" / "water.pdb"


class Point(NamedTuple):
    """One structure by one form."""

    forces: NDArray[np.float64]  # (n, 3), eV/Å
    pressure_gpa: float  # of the periodic box, without the kinetic part
    seconds: float  # median


def point(atoms: Atoms, model: Path, dtype: str, form: str, rounds: int) -> Point:
    """Forces, pressure and time."""
    there = atoms.copy()
    there.calc = So3kCalculator(model, dtype=dtype, coulomb=form)
    forces = there.get_forces()
    pressure = -there.get_stress()[:3].mean() / GPa if there.pbc.all() else float("nan")
    seconds = []
    for turn in range(rounds):
        there.positions += 1e-7 * (-1) ** turn
        start = time.process_time()
        there.get_forces()
        seconds.append(time.process_time() - start)
    return Point(forces, pressure, statistics.median(seconds))


def table(points: dict[str, Point]) -> str:
    """Differences from kspace."""
    exact = points["kspace"]
    lines = ["| form | rms ΔF / eV/Å | max ΔF / eV/Å | Δp / GPa | ms | against kspace |", "|---" * 6 + "|"]
    for name, found in points.items():
        error = found.forces - exact.forces
        change = found.pressure_gpa - exact.pressure_gpa
        lines.append(
            f"| {name} | {np.sqrt((error * error).mean()):.4f} | {np.abs(error).max():.4f} "
            f"| {'–' if np.isnan(change) else f'{change:+.4f}'} | {1e3 * found.seconds:.1f} "
            f"| {found.seconds / exact.seconds:.2f}× |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="exported file of a model with charges")
    parser.add_argument("--dtype", default="float64", choices=("float32", "float64"), help="precision")
    parser.add_argument("--rounds", type=int, default=5, help="evaluations that are timed")
    args = parser.parse_args()
    water = ase.io.read(WATER)
    water.pbc = True
    for title, atoms in {"216 waters": water, "one water": molecule("H2O")}.items():
        print(f"\n{title}, {args.dtype}")
        print(table({form: point(atoms, args.model, args.dtype, form, args.rounds) for form in COULOMB}))


if __name__ == "__main__":
    sys.exit(guarded(main))
