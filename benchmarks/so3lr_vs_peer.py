"""A molecular dynamics step of SO3LR here and in so3krates-torch, both measured in one run.

    so3k-md import so3lr -o so3lr.pt && so3k-md kernels build
    python benchmarks/so3lr_vs_peer.py so3lr.pt --rounds 3 --output so3lr_vs_peer.json

The same structures, one thread, float32. Each case is a process of its own, whose peak memory is told as
well, in brackets without what importing torch and ASE takes; the cases of a structure take turns, and ratios
are medians of the ratios within a turn. The peer is run by its own ASE calculator with its default cutoff of
12 Å for all pairs beyond the layers, ours with the exact Coulomb sum and with the same cut-off form.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ase.io
import numpy as np
import psutil
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE
from engines import KELVIN, TIMESTEP_FS, in_process, lammps_engine, markdown, openmm_engine, timed
from peer_codes import so3krates_torch

DATA = Path(__file__).parent / "data" / "so3lr"
PEER = "so3krates-torch"
STRUCTURES = {
    "alanine dipeptide": 0,
    "64 waters": 4,
    "216 waters": 6,
    "512 waters": 8,
}  # molecules on an edge
SPACING = 3.106  # Å between molecules, the density of water
RELAXATION = 60  # steps


def structure(name: str) -> Atoms:
    """One of STRUCTURES."""
    if not STRUCTURES[name]:
        return Atoms(ase.io.read(DATA / "alanine_dipeptide.xyz"))
    return water_box(STRUCTURES[name])


def water_box(edge: int) -> Atoms:
    """edge³ molecules on a lattice, each turned so that it keeps away from those before it."""
    rng = np.random.default_rng(0)
    one, length = molecule("H2O"), edge * SPACING
    box = Atoms(cell=[length] * 3, pbc=True)
    for site in np.ndindex(edge, edge, edge):
        best, clearest = one, 0.0
        for _ in range(8):
            turned = one.copy()
            turned.rotate(360.0 * rng.random(), rng.normal(size=3), center="COM")
            turned.translate(SPACING * np.array(site) - turned.get_center_of_mass())
            between = turned.positions[:, None] - box.positions[-3 * (edge**2 + edge + 1) :]
            between -= length * np.round(between / length)
            clear = np.linalg.norm(between, axis=2).min() if len(box) else 1.0
            if clear > clearest:
                best, clearest = turned, clear
        box += best
    return box


def verlet(atoms: Atoms, calculator: Calculator) -> float:
    """Seconds of a step of ASE's velocity Verlet."""
    atoms.calc = calculator
    MaxwellBoltzmannDistribution(atoms, temperature_K=KELVIN, rng=np.random.default_rng(0))
    dynamics = VelocityVerlet(atoms, TIMESTEP_FS * units.fs)
    return timed(lambda: dynamics.run(1))


def peer(atoms: Atoms, model: str, device: str = "cpu") -> float:
    """so3krates-torch with its ASE calculator."""
    return verlet(atoms, so3krates_torch(device))


def ours(
    atoms: Atoms, model: str, coulomb: str = "kspace", kernels: str = "auto", device: str = "cpu"
) -> float:
    """This package with its ASE calculator."""
    import torch

    from so3k_md.engines.ase import So3kCalculator

    torch.jit.set_fusion_strategy([])
    return verlet(atoms, So3kCalculator(model, device, "float32", coulomb=coulomb, kernels=kernels))


CASES: dict[str, Callable[[Atoms, str], float]] = {
    PEER: peer,
    "ASE": ours,
    "ASE, Coulomb shifted": lambda atoms, model: ours(atoms, model, "shifted"),
    "ASE, without kernels": lambda atoms, model: ours(atoms, model, kernels="off"),
    "OpenMM": lambda atoms, model: openmm_engine(atoms, model, "cpu", "auto"),
    "LAMMPS 1 rank": lambda atoms, model: lammps_engine(atoms, model, "cpu", 1),
}


def run_case(
    case: Callable[[Atoms, str], float], file: str, model: str, in_child: bool, threads: int = 1
) -> None:
    """What a process of `measure` does: print the time of a case, its peak memory, and that without imports.

    Args:
        case: gives the seconds of a step.
        file: of the structure.
        model: an exported file.
        in_child: whether the memory is that of a process that the case starts.
        threads: that torch may use.
    """
    import torch

    torch.set_num_threads(threads)
    torch.ones(8, 8) @ torch.ones(8, 8)
    imports = peak_mb()
    with ThreadPoolExecutor(1) as watcher:
        ended = threading.Event()
        largest = watcher.submit(largest_child_mb, ended)
        try:
            seconds = case(Atoms(ase.io.read(file)), model)
        finally:
            ended.set()
    mb = largest.result() if in_child else peak_mb()
    print(json.dumps({"ms": 1e3 * seconds, "mb": mb, "over": mb - imports}))


def peak_mb() -> float:
    """Peak memory of this process; `getrusage` would tell that of its parent too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def largest_child_mb(ended: threading.Event) -> float:
    """Peak memory of the largest process below this one until the event, looked at ten times a second."""
    largest = 0.0
    while not ended.wait(0.1):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                largest = max(largest, child.memory_info().rss / 2**20)
    return largest


def relaxed(name: str, model: str) -> Atoms:
    """One of STRUCTURES after some steps downhill, lest a run from it boils."""
    from so3k_md.engines.ase import So3kCalculator

    atoms = structure(name)
    atoms.calc = So3kCalculator(model)
    FIRE(atoms, logfile=None, maxstep=0.1).run(fmax=0.5, steps=RELAXATION)
    return Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def measure(case: str, file: str, args: argparse.Namespace) -> dict[str, float]:
    """One case, of a structure in a file, in a process of its own."""
    python = args.peer_python if case == PEER else sys.executable
    command = [python, __file__, args.model, "--case", case, "--structure", file]
    return in_process(command, OMP_WAIT_POLICY="passive")


def table(results: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    """Markdown: ms/step, how many times faster than the peer in the same turn, and peak memory."""
    rows: dict[str, list[str]] = {}
    for case in next(iter(results.values())):
        cells = rows.setdefault(case, [])
        for turns in results.values():
            ms = statistics.median(turn["ms"] for turn in turns[case])
            pairs = list(zip(turns[PEER], turns[case], strict=True))
            faster = statistics.median(theirs["ms"] / mine["ms"] for theirs, mine in pairs)
            mb, over = (max(turn[key] for turn in turns[case]) for key in ("mb", "over"))
            cells.append(f"{ms:.1f} ms, {faster:.1f}×, {mb:.0f} MB ({over:.0f})")
    return markdown("case", list(results), rows)


def main() -> None:
    """Measure all cases in turns and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="what so3k-md import so3lr wrote")
    parser.add_argument("--structures", nargs="+", default=list(STRUCTURES), choices=STRUCTURES)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--peer-python", default=sys.executable, help="an interpreter with both packages, if not this one"
    )
    parser.add_argument("--output", help="JSON file for all single results")
    parser.add_argument("--case", choices=list(CASES), help=argparse.SUPPRESS)
    parser.add_argument("--structure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        run_case(CASES[args.case], args.structure, args.model, args.case.startswith("LAMMPS"))
        return
    cases = [PEER, *(case for case in args.cases if case != PEER)]
    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.structures:
            file = str(Path(folder) / "start.extxyz")
            ase.io.write(file, relaxed(name, args.model))
            turns = results[name] = {case: [] for case in cases}
            for turn in range(args.rounds):
                for case in cases:
                    turns[case].append(measure(case, file, args))
                    print(f"{name}, turn {turn + 1}, {case}: {turns[case][-1]}", file=sys.stderr)
    print(table(results))
    if args.output:
        Path(args.output).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
