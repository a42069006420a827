"""One periodic, triclinic box in every code and on 1 to 4 MPI ranks, float64, against PyTorch.

python benchmarks/agreement.py
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.io import write

from so3k_md.checkpoint import resolve_model
from so3k_md.engines.agreement import SinglePoint, agreement, ase_point, openmm_point, pytorch_point
from so3k_md.engines.lammps import run

CELL = np.array([[11.0, 0.0, 0.0], [2.0, 9.5, 0.0], [-1.5, 1.0, 9.0]])  # Å
LAMMPS_INPUT = """
units metal
atom_style atomic
newton on
read_data box.data
pair_style so3k precision float64
pair_coeff * * {model} C H O
dump forces all custom 1 forces.dump id fx fy fz
dump_modify forces sort id format float %.17g
run 0
print "$(pe:%.17g)" file energy.txt
"""


def ethanol_box() -> Atoms:
    """Eight molecules in random orientations."""
    rng = np.random.default_rng(3)
    box = Atoms(cell=CELL, pbc=True)
    for place in np.ndindex(2, 2, 2):
        one = molecule("CH3CH2OH")
        one.rotate(rng.uniform(0, 360), rng.normal(size=3), center="COM")
        one.translate((np.array(place) + 0.25) / 2 @ CELL - one.get_center_of_mass())
        box += one
    return box


def lammps_point(atoms: Atoms, model: Path, ranks: int) -> SinglePoint:
    """Energy and forces by LAMMPS on some ranks."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "box.data", atoms, format="lammps-data", specorder=["C", "H", "O"], masses=True)
        (folder / "in.box").write_text(LAMMPS_INPUT.format(model=model))
        done = run("in.box", folder, ranks=ranks)
        if done.returncode:
            raise SystemExit(done.stdout[-2000:] + done.stderr)
        energy = float((folder / "energy.txt").read_text())
        return SinglePoint(energy, np.loadtxt(folder / "forces.dump", skiprows=9)[:, 1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ethanol-rmd17", help="exported model or its name")
    model = resolve_model(parser.parse_args().model).resolve()
    atoms = ethanol_box()
    points = {
        "PyTorch": pytorch_point(atoms, model),
        "ASE": ase_point(atoms, model),
        "OpenMM": openmm_point(atoms, model),
    }
    for ranks in (1, 2, 3, 4):
        points[f"LAMMPS, {ranks} ranks"] = lammps_point(atoms, model, ranks)
    print(agreement(points))


if __name__ == "__main__":
    main()
