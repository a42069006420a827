"""Cost of a molecular dynamics step in every engine against the bare model, all measured in one run.

    python benchmarks/engines.py --rounds 3 --output benchmarks/engines.json

Each case is a process of its own (peak memory is that of its largest process), with `--threads` threads;
the cases of a size take turns, and ratios are medians of the ratios within a turn.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.build import molecule

SIZES = {9: (1, 1, 1), 108: (2, 2, 3), 504: (4, 7, 2), 2016: (4, 7, 8)}  # atoms: molecules along a, b, c
SPACING = np.array([5.6, 4.6, 3.8])  # Å, one molecule in each cell: the density of liquid ethanol
SECONDS = 3.0  # a case runs about this long, at least MIN_STEPS
MIN_STEPS = 5
LONG_WARM_UP = 20.0  # s
TIMESTEP_FS = 0.5
KELVIN = 300.0


def ethanol_box(n_atoms: int) -> Atoms:
    """A crystal of ethanol at the density of the liquid, a little disordered."""
    one = molecule("CH3CH2OH")
    one.translate(-one.get_center_of_mass())
    one.set_cell(SPACING)
    one.pbc = True
    box = one.repeat(SIZES[n_atoms])
    box.positions += np.random.default_rng(0).normal(scale=0.02, size=box.positions.shape)
    return box


def timed(step: Callable[[], Any], warm_up: int = 5, seconds: float = SECONDS) -> float:
    """Seconds of one call of `step`, the median after some calls that do not count.

    Args:
        step: waits until its result is there.
        warm_up: calls that do not count, fewer if they take long.
        seconds: about this long, at least MIN_STEPS calls.
    """
    start = time.perf_counter()
    for _ in range(warm_up):
        step()
        if time.perf_counter() - start > LONG_WARM_UP:
            break
    durations: list[float] = []
    while len(durations) < MIN_STEPS or sum(durations) < seconds:
        start = time.perf_counter()
        step()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


def graph_of(atoms: Atoms, model: Any, device: str = "cpu") -> Any:
    """The graph of a structure, pairs in the order of the engines' lists; groups from the array `group`."""
    from so3k_md.graph import CUTOFF_LR, to_device
    from so3k_md.needs import needs_of
    from so3k_md.structure.build import build, kept
    from so3k_md.structure.structure import checked

    needs, group = needs_of(model), atoms.arrays.get("group")
    box = atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc
    structure = checked(needs, *box, where="the structure", group=group)
    return to_device(build(structure, kept(needs, CUTOFF_LR, skin=0.0)), device)


def bare(atoms: Atoms, model: str, device: str) -> float:
    """Energies, forces and virial of one graph, without neighbor list or engine."""
    import torch

    from so3k_md import load
    from so3k_md.model.forces import evaluate

    torch.jit.set_fusion_strategy([])
    loaded = load(model, device=device, dtype="float32")
    graph = graph_of(atoms, loaded, device)

    def step() -> None:
        evaluate(loaded, graph, 1).forces.cpu()

    return timed(step)


def ase_engine(atoms: Atoms, model: str, device: str) -> float:
    """Velocity Verlet of ASE with our calculator."""
    import torch
    from ase import units
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
    from ase.md.verlet import VelocityVerlet

    from so3k_md.engines.ase import So3kCalculator

    torch.jit.set_fusion_strategy([])
    atoms.calc = So3kCalculator(model, device=device, dtype="float32")
    MaxwellBoltzmannDistribution(atoms, temperature_K=KELVIN, rng=np.random.default_rng(0))
    dynamics = VelocityVerlet(atoms, TIMESTEP_FS * units.fs)
    return timed(lambda: dynamics.run(1))


def openmm_engine(atoms: Atoms, model: str, device: str, backend: str) -> float:
    """Verlet integration in OpenMM."""
    import torch  # noqa: F401  (before openmm, whose plugin needs its libraries)

    from so3k_md.engines.openmm import create_system  # isort: skip
    import openmm
    from openmm import unit

    made = create_system(atoms, model, backend=backend, dtype="float32", device=device)
    integrator = openmm.VerletIntegrator(TIMESTEP_FS * unit.femtosecond)
    platform = openmm.Platform.getPlatformByName("CPU" if device == "cpu" else "CUDA")
    context = openmm.Context(made.system, integrator, platform, {"Threads": "1"} if device == "cpu" else {})
    context.setPositions(made.positions_nm)
    context.setVelocitiesToTemperature(KELVIN, 0)
    return timed(lambda: integrator.step(1))


LAMMPS_INPUT = """
units metal
atom_style atomic
newton on
boundary {boundary}
read_data box.data
pair_style so3k precision float32 device {device}
pair_coeff * * {model} {elements}
velocity all create {kelvin} 1
timestep {ps}
fix 1 all nve
thermo 1000000
run 5
run {steps}
"""


def lammps_engine(atoms: Atoms, model: str, device: str, ranks: int) -> float:
    """NVE in LAMMPS; the time is LAMMPS' own loop time."""
    from so3k_md.checkpoint import resolve_model
    from so3k_md.engines.lammps import run

    per_step = 0.0
    elements = sorted(set(atoms.symbols))
    with tempfile.TemporaryDirectory() as folder:
        box = atoms.copy()
        if not box.pbc.any():
            box.center(vacuum=20.0)
        ase.io.write(Path(folder) / "box.data", box, format="lammps-data", specorder=elements, masses=True)
        steps = MIN_STEPS
        for _ in range(2):  # the first, short run tells how many steps fill the time
            text = LAMMPS_INPUT.format(
                boundary="p p p" if box.pbc.any() else "f f f",
                elements=" ".join(elements),
                device=device,
                model=resolve_model(model).resolve(),
                kelvin=KELVIN,
                ps=TIMESTEP_FS / 1e3,
                steps=steps,
            )
            (Path(folder) / "in.box").write_text(text)
            done = run("in.box", folder, ranks=ranks)
            if done.returncode:
                raise SystemExit(done.stdout[-2000:] + done.stderr)
            line = [line for line in done.stdout.splitlines() if line.startswith("Loop time of")][-1]
            per_step = float(line.split()[3]) / steps
            steps = max(MIN_STEPS, int(SECONDS / per_step))
    return per_step


CASES = {
    "bare model": bare,
    "ASE": ase_engine,
    "OpenMM TorchForce": lambda a, m, d: openmm_engine(a, m, d, "torchforce"),
    "OpenMM PythonForce": lambda a, m, d: openmm_engine(a, m, d, "pythonforce"),
    "LAMMPS 1 rank": lambda a, m, d: lammps_engine(a, m, d, 1),
    "LAMMPS 2 ranks": lambda a, m, d: lammps_engine(a, m, d, 2),
}


def in_process(
    command: list[str], threads: int = 1, timeout: float | None = None, **environment: str
) -> dict[str, Any]:
    """The JSON that a command prints in its last line.

    Args:
        command: of a process of its own.
        threads: that OpenMP may use.
        timeout: s.
        environment: further variables.

    Raises:
        SystemExit: the command failed; with the end of what it printed.
        subprocess.TimeoutExpired: it took longer.
    """
    settings = {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore", **environment}
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **settings}, timeout=timeout
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(case: str, n_atoms: int, model: str, device: str, threads: int) -> dict[str, float]:
    """One case in a process of its own."""
    command = [sys.executable, __file__, "--case", case, "--atoms", str(n_atoms)]
    command += ["--model", model, "--device", device, "--threads", str(threads)]
    return in_process(command, threads)


def run_case(args: argparse.Namespace) -> None:
    """What a process of `measure` does."""
    import torch

    torch.set_num_threads(args.threads)
    seconds = CASES[args.case](ethanol_box(args.atoms), args.model, args.device)
    who = resource.RUSAGE_CHILDREN if args.case.startswith("LAMMPS") else resource.RUSAGE_SELF
    print(json.dumps({"ms": 1e3 * seconds, "mb": resource.getrusage(who).ru_maxrss / 1024}))


def markdown(corner: str, columns: list[str], rows: dict[str, list[str]]) -> str:
    """A Markdown table from the cells of each row."""
    lines = [f"| {corner} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return "\n".join(lines + [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()])


def table(results: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    """Markdown: ms/step, ratio to the bare model of the same turn, peak memory."""
    rows: dict[str, list[str]] = {}
    for case in CASES:
        cells = rows.setdefault(case, [])
        for turns in results.values():
            ms = statistics.median(turn["ms"] for turn in turns[case])
            pairs = zip(turns[case], turns["bare model"], strict=True)
            ratio = statistics.median(mine["ms"] / bare["ms"] for mine, bare in pairs)
            mb = max(turn["mb"] for turn in turns[case])
            cells.append(f"{ms:.1f} ms, {ratio:.2f}×, {mb:.0f} MB")
    return markdown("engine", [f"{n} atoms" for n in results], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ethanol-rmd17", help="exported model or its name")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--output", help="JSON file for all single results")
    parser.add_argument("--case", choices=list(CASES), help=argparse.SUPPRESS)
    parser.add_argument("--atoms", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        run_case(args)
        return
    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    for n_atoms in args.sizes:
        turns = results[str(n_atoms)] = {case: [] for case in CASES}
        for turn in range(args.rounds):
            for case in CASES:
                turns[case].append(measure(case, n_atoms, args.model, args.device, args.threads))
                print(
                    f"{n_atoms} atoms, turn {turn + 1}, {case}: {turns[case][-1]['ms']:.1f} ms",
                    file=sys.stderr,
                )
    print(table(results))
    if args.output:
        Path(args.output).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
