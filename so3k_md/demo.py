"""make demo: one molecule in OpenMM and in LAMMPS on two ranks, compared with PyTorch, and one report."""

import argparse
import re
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import openmm
from ase import Atoms
from ase.optimize import BFGS
from openmm import app, unit

from so3k_md import cli
from so3k_md.analysis import analyze, write_report
from so3k_md.checkpoint import resolve_model
from so3k_md.engines import lammps
from so3k_md.engines.agreement import (
    SinglePoint,
    agreement,
    ase_point,
    openmm_point,
    pytorch_point,
)
from so3k_md.engines.ase import So3kCalculator
from so3k_md.engines.openmm import create_system
from so3k_md.engines.openmm.run import add_reporters, readable_errors
from so3k_md.errors import So3kError

KELVIN = 300.0
STEP_FS = 0.5
FRICTION_PS = 10.0  # 1/ps; strong, so that 5 ps are enough to sample 300 K
NUMBERS = re.compile(r" *\d+( +[-+.\deE]+){5} *")  # a row of the thermo_style below
LAMMPS_SETUP = """
units metal
boundary m m m
atom_style atomic
atom_modify map yes
read_data data.ethanol
pair_style so3k precision ${precision}
pair_coeff * * ${model} C H O
"""
LAMMPS_POINT = """
dump forces all custom 1 forces.dump id fx fy fz
dump_modify forces sort id format float %.17g
run 0
print "$(pe:%.17g)" file energy.txt
"""
LAMMPS_NVT = """
timestep $(v_step_fs/1000)
velocity all create ${kelvin} 1 dist gaussian
fix move all nve
fix bath all langevin ${kelvin} ${kelvin} $(1/v_friction) 2
compute_modify thermo_temp extra/dof 0
thermo_style custom step time temp pe ke etotal
thermo_modify flush yes
thermo ${every}
dump positions all custom ${every} trajectory.dump id type element xu yu zu
dump_modify positions sort id element C H O
run ${steps}
"""


def main(arguments: argparse.Namespace) -> None:
    """Compare the codes, run both engines, analyse both trajectories."""
    folder, model = Path(arguments.output), resolve_model(arguments.model).resolve()
    for name in ("openmm", "lammps"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    print(f"Ethanol with {model.name}: relaxing the molecule with ASE")
    atoms = relaxed_ethanol(model)
    ase.io.write(
        folder / "lammps" / "data.ethanol",
        atoms,
        format="lammps-data",
        masses=True,
        specorder=["C", "H", "O"],
    )
    print("\nOne structure in every code, float64")
    print(agreement({
        "PyTorch": pytorch_point(atoms, model),
        "ASE": ase_point(atoms, model),
        "OpenMM": openmm_point(atoms, model),
        "LAMMPS, 1 rank": lammps_point(folder / "lammps", model, ranks=1),
        "LAMMPS, 2 ranks": lammps_point(folder / "lammps", model, ranks=2),
    }))  # fmt: skip
    picoseconds = arguments.steps * STEP_FS / 1000
    every = max(1, arguments.steps // 500)
    print(f"\nOpenMM, TorchForce: {picoseconds:g} ps at {KELVIN:g} K, float32")
    openmm_nvt(atoms, model, folder / "openmm", arguments.steps, every)
    print(f"LAMMPS, 2 ranks: {picoseconds:g} ps at {KELVIN:g} K, float32")
    lammps_nvt(folder / "lammps", model, arguments.steps, every)
    print(f"\nReport: {report(folder)}")


def relaxed_ethanol(model: Path) -> Atoms:
    """Ethanol at the model's minimum, in the middle of a box."""
    atoms = ase.build.molecule("CH3CH2OH", vacuum=10.0)
    atoms.calc = So3kCalculator(model, dtype="float64")
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=200)
    return atoms


def lammps_point(folder: Path, model: Path, ranks: int) -> SinglePoint:
    """The same by LAMMPS."""
    run_lammps(folder, "in.point", LAMMPS_POINT, ranks, model=model, precision="float64")
    energy = float((folder / "energy.txt").read_text())
    return SinglePoint(energy, np.loadtxt(folder / "forces.dump", skiprows=9)[:, 1:])


def openmm_nvt(atoms: Atoms, model: Path, folder: Path, steps: int, every: int) -> None:
    """Langevin dynamics by a TorchForce."""
    built = create_system(atoms, model, backend="torchforce", dtype="float32")
    integrator = openmm.LangevinMiddleIntegrator(
        KELVIN * unit.kelvin, FRICTION_PS / unit.picosecond, STEP_FS * unit.femtosecond
    )
    simulation = app.Simulation(built.topology, built.system, integrator, built.platform)
    simulation.context.setPositions(built.positions_nm)
    simulation.context.setVelocitiesToTemperature(KELVIN * unit.kelvin, 1)
    add_reporters(simulation, folder, every, steps, overwrite=True)
    with readable_errors():
        simulation.step(steps)


def lammps_nvt(folder: Path, model: Path, steps: int, every: int) -> None:
    """The same dynamics by LAMMPS on two ranks."""
    settings = {"steps": steps, "every": every, "kelvin": KELVIN, "step_fs": STEP_FS, "friction": FRICTION_PS}
    log = folder / "log.lammps"
    log.unlink(missing_ok=True)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(
            run_lammps, folder, "in.nvt", LAMMPS_NVT, 2, model=model, precision="float32", **settings
        )
        while wait([running], timeout=10).not_done:
            print(f"step {last_step(log)} of {steps}", flush=True)
    running.result()


def last_step(log: Path) -> int:
    """The step of the last row of numbers in the log of LAMMPS; 0 before there is one."""
    rows = log.read_text().splitlines() if log.exists() else []
    return next((int(row.split()[0]) for row in reversed(rows) if NUMBERS.fullmatch(row)), 0)


def run_lammps(folder: Path, name: str, text: str, ranks: int, **variables: object) -> None:
    """Write an input file and run it.

    Raises:
        So3kError: LAMMPS stops with an error.
    """
    (folder / name).write_text(LAMMPS_SETUP + text)
    done = lammps.run(name, folder, ranks, variables)
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if "ERROR" in line] or [done.stderr]
        raise So3kError(f"LAMMPS stopped in {folder / name}: {errors[0]}; see {folder / 'log.lammps'}")


def report(folder: Path) -> Path:
    """One report of both trajectories.

    Raises:
        So3kError: the molecule dissociated.
    """
    top = folder / "openmm" / "topology.pdb"
    analyses = [
        analyze(folder / name.lower() / trajectory, top, folder / name.lower() / log,
                label=name, timestep_fs=STEP_FS, temperature_K=KELVIN)
        for name, trajectory, log in (
            ("OpenMM", "trajectory.dcd", "log.csv"),
            ("LAMMPS", "trajectory.dump", "log.lammps"),
        )
    ]  # fmt: skip
    html = folder / "report.html"
    write_report(analyses, html, folder / "report.json", overwrite=True)
    for analysis in analyses:
        print(f"{analysis.label}: {analysis.stability.verdict}")
        if not analysis.stability.stable:
            raise So3kError(f"the molecule dissociated in {analysis.label}: see {html}")
    return html.resolve()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ethanol-rmd17", help="name or file of a model of C, H and O")
    parser.add_argument("--steps", type=int, default=10_000, help=f"of {STEP_FS} fs, in each engine")
    parser.add_argument("-o", "--output", default="demo", help="folder")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parsed = parser.parse_args()
    sys.exit(cli.guarded(lambda: main(parsed), parsed.debug))
