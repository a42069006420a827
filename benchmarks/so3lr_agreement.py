"""SO3LR in every engine against the numbers of so3krates-torch, for all structures that these exist for.

    so3k-md import so3lr -o so3lr.pt --dtype float64
    python benchmarks/so3lr_agreement.py so3lr.pt

Energies (without the shift), forces, charges and Hirshfeld ratios in float64 with the Coulomb sum of the
other program (`shifted`), each structure with each of its cutoffs. The last rows are the largest
deviations and the gates. `--rounding peer` of the import makes the constants those of the other program,
and the gates tighter.
"""

import argparse
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import numpy as np
import torch  # before openmm
from ase import Atoms

REFERENCE = Path(__file__).parents[1] / "tests" / "reference"
GATES = {"exact": (1e-6, 5e-6, 1e-6), "peer": (1e-10, 2e-10, 1e-9)}  # eV/atom, eV/Å, e and ratios
INPUT = """
units metal
atom_style atomic
boundary {boundary}
newton on
read_data box.data
pair_style so3k precision float64 device cpu coulomb shifted cutoff_lr {cutoff} charge {charge}
pair_coeff * * {model} {symbols}
neighbor 2.0 {lists}
neigh_modify one 20000 page 400000
fix predicted all pair 1 so3k charges 0 hirshfeld_ratios 0
dump all all custom 1 all.dump id fx fy fz f_predicted[1] f_predicted[2]
dump_modify all sort id format float %.17g
run 0
print "$(pe:%.17g)" file energy.txt
"""


class Found(NamedTuple):
    """What a code says of a structure."""

    energy: float  # eV
    forces: Any  # (atoms, 3), eV/Å
    predicted: Any  # (2, atoms), charges and Hirshfeld ratios; None where a code does not tell them here


class Case(NamedTuple):
    """A structure, a cutoff, and what the other program says."""

    name: str
    cutoff: float  # Å
    atoms: Atoms
    expected: Found


def cases(names: list[str] | None) -> Iterator[Case]:
    """All structures and cutoffs; cells are turned to the lower triangular form of LAMMPS and OpenMM."""
    parts, forces = (np.load(REFERENCE / f"so3lr_{name}.npz") for name in ("parts", "forces"))
    for key in sorted(key for key in forces.files if key.split("|")[1] == "forces"):
        name, _, cutoff = key.split("|")
        if names and name not in names:
            continue
        cell = parts[f"{name}|cell"]
        atoms = Atoms(parts[f"{name}|z"], parts[f"{name}|r"], cell=cell, pbc=bool(np.any(cell)))
        atoms.info["charge"] = float(forces[f"{name}|charge"])
        turn = np.eye(3)
        if atoms.pbc.any():
            standard, turn = atoms.cell.standard_form()
            atoms.set_cell(standard, scale_atoms=True)
        predicted = np.stack([parts[f"{name}|q"], parts[f"{name}|h"]])
        expected = Found(float(forces[f"{name}|energy|{cutoff}"]), forces[key] @ turn.T, predicted)
        yield Case(name, float(cutoff), atoms, expected)


def by_ase(case: Case, model: Path) -> Found:
    """Energy, forces, charges and ratios by ASE's calculator."""
    from so3k_md.engines.ase import So3kCalculator

    atoms = case.atoms.copy()
    atoms.calc = So3kCalculator(model, coulomb="shifted", cutoff_lr=case.cutoff)
    forces, results = atoms.get_forces(), atoms.calc.results
    return Found(results["energy"], forces, np.stack([results["charges"], results["hirshfeld_ratios"]]))


def by_openmm(backend: str) -> Callable[[Case, Path], Found]:
    """Energy and forces by OpenMM."""

    def single_point(case: Case, model: Path) -> Found:
        import openmm
        from openmm import unit

        from so3k_md.engines.openmm import create_system
        from so3k_md.units import EV_IN_KJ_MOL, NM_IN_ANGSTROM

        made = create_system(case.atoms, model, backend=backend, coulomb="shifted", cutoff_lr=case.cutoff)
        platform = openmm.Platform.getPlatformByName("Reference")
        context = openmm.Context(made.system, openmm.VerletIntegrator(0.0005), platform)
        context.setPositions(made.positions_nm)
        state = context.getState(energy=True, forces=True)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        return Found(energy / EV_IN_KJ_MOL, forces / EV_IN_KJ_MOL / NM_IN_ANGSTROM, None)

    return single_point


def by_lammps(ranks: int) -> Callable[[Case, Path], Found]:
    """Energy, forces, charges and ratios by LAMMPS."""

    def single_point(case: Case, model: Path) -> Found:
        from so3k_md.engines.lammps import run

        atoms, symbols = case.atoms.copy(), sorted(set(case.atoms.symbols))
        periodic = bool(atoms.pbc.any())
        if not periodic:
            atoms.set_cell(np.ptp(atoms.positions, axis=0) + 2.0)
            atoms.positions += 1.0 - atoms.positions.min(axis=0)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            ase.io.write(folder / "box.data", atoms, format="lammps-data", specorder=symbols, masses=True)
            settings = {
                "boundary": "p p p" if periodic else "f f f",
                "lists": "bin" if periodic else "nsq",  # bins do not fit a box far smaller than the cutoff
                "cutoff": case.cutoff,
                "charge": round(atoms.info["charge"]),
                "model": model.resolve(),
                "symbols": " ".join(symbols),
            }
            (folder / "in.point").write_text(INPUT.format(**settings))
            done = run("in.point", folder, ranks=ranks)
            if done.returncode:
                raise SystemExit(f"{case.name}:\n{done.stdout[-2000:]}{done.stderr}")
            table = np.loadtxt(folder / "all.dump", skiprows=9)[:, 1:]
            return Found(float((folder / "energy.txt").read_text()), table[:, :3], table[:, 3:].T)

    return single_point


CODES: dict[str, Callable[[Case, Path], Found]] = {
    "ASE": by_ase,
    "TorchForce": by_openmm("torchforce"),
    "PythonForce": by_openmm("pythonforce"),
    "LAMMPS, 1 rank": by_lammps(1),
    "LAMMPS, 2 ranks": by_lammps(2),
    "LAMMPS, 4 ranks": by_lammps(4),
}


def deviations(found: Found, expected: Found) -> tuple[float, float, float]:
    """|ΔE| per atom in eV, largest |ΔF| in eV/Å, largest deviation of charges and ratios."""
    energy = abs(found.energy - expected.energy) / len(expected.forces)
    predicted = 0.0 if found.predicted is None else np.abs(found.predicted - expected.predicted).max()
    return energy, float(np.abs(found.forces - expected.forces).max()), float(predicted)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="what so3k-md import so3lr wrote, in float64")
    parser.add_argument("--structures", nargs="+", help="names; all by default")
    parser.add_argument("--codes", nargs="+", choices=list(CODES), default=list(CODES))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    from so3k_md.checkpoint import metadata

    said = metadata(torch.jit.load(str(args.model)))
    if said["dtype"] != "float64":
        raise SystemExit(f"{args.model} is in {said['dtype']}: import it with --dtype float64")
    gates = GATES[said.get("rounding", "exact")]
    worst = {code: (0.0, 0.0, 0.0) for code in args.codes}
    print("| structure | cutoff / Å | atoms | " + " | ".join(args.codes) + " |")
    print("|---" * (3 + len(args.codes)) + "|")
    for case in cases(args.structures):
        cells = []
        for code in args.codes:
            found = deviations(CODES[code](case, args.model), case.expected)
            worst[code] = tuple(map(max, worst[code], found))  # type: ignore[assignment]
            cells.append(" ".join(f"{one:.0e}" for one in found))
        print(f"| {case.name} | {case.cutoff:g} | {len(case.atoms)} | {' | '.join(cells)} |", flush=True)
    largest = " | ".join(" ".join(f"{one:.1e}" for one in worst[code]) for code in args.codes)
    print(f"| largest | | | {largest} |")
    print("| gate" + " | |" + f" | {' '.join(f'{gate:.0e}' for gate in gates)}" * len(args.codes) + " |")
    if any(one > gate for found in worst.values() for one, gate in zip(found, gates, strict=True)):
        raise SystemExit("a deviation is larger than its gate")


if __name__ == "__main__":
    main()
