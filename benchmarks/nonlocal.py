"""Time and memory of energies and forces against the size of a group, for attention none, sphc and efa.

    python benchmarks/nonlocal.py --output benchmarks/nonlocal

Untrained models that differ in nothing but the kind of attention, float32, one thread, with compiled
kernels if these are built (--kernels off: without); a group is a compact random cluster of H, C and O at
0.1 atoms per Å³, as in organic matter. Each case is a process of its own, of which CPU time and peak memory
are given (LAMMPS: wall time). The kinds take turns, and ratios are medians of the ratios within a turn. A
kind stops before a size whose time or memory would go beyond --case-seconds or --case-gb.
"""

import argparse
import json
import math
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from engines import in_process
from nonlocal_report import draw, markdown

KINDS = ("none", "sphc", "efa")
SIZES = (10, 30, 100, 300, 500, 1000, 3000, 10_000, 30_000, 100_000)
SMALL_GROUPS = ((500, 13), (5000, 13))  # atoms in all, atoms in a group
LAMMPS_SIZES = (100, 500)
DENSITY = 0.1  # atoms/Å³
MIN_STEPS = 3
SECONDS = 2.0  # a case repeats its step about this long
LAMMPS_INPUT = """
units metal
atom_style molecular
boundary f f f
newton on
read_data box.data
comm_style tiled
pair_style so3k precision float32 max_group 1000000
pair_coeff * * {model} H C O
balance 1.1 rcb
velocity all create 10 1
timestep 0.0001
fix 1 all nve
thermo 1000000
run 2
run {steps}
"""


def cluster(n_atoms: int, group_size: int) -> tuple[Any, Any, Any]:
    """Atomic numbers, positions (Å) and groups of a round piece of a disordered lattice.

    Groups are neighbors in space: atoms in turn along a lattice of larger cells.
    """
    rng = np.random.default_rng(0)
    spacing = DENSITY ** (-1 / 3)
    side = math.ceil((n_atoms * 6 / math.pi) ** (1 / 3)) + 2
    lattice = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    order = np.argsort(((lattice - side / 2) ** 2).sum(1), kind="stable")[:n_atoms]
    positions = spacing * lattice[order] + rng.normal(scale=0.2, size=(n_atoms, 3))
    coarse = np.floor(positions / (spacing * group_size ** (1 / 3))).astype(int)
    group = np.empty(n_atoms, dtype=np.int64)
    group[np.lexsort(coarse.T)] = np.arange(n_atoms) // group_size
    return rng.choice([1, 6, 8], size=n_atoms), positions - positions.min(0) + 1.0, group


def make_models(folder: Path, args: argparse.Namespace) -> None:
    """Export one untrained model of each kind."""
    from so3k_md import ModelConfig, So3krates
    from so3k_md.export import torchscript

    shape = {"features": args.features, "layers": args.layers, "cutoff": args.cutoff}
    for kind in KINDS:
        # a grid of 50 points reaches as far as it is told; its resolution falls accordingly
        config = ModelConfig(nonlocal_=kind, interaction="linear", efa_grid=50, efa_reach=300.0, **shape)
        torchscript.save(So3krates(config, [1, 6, 8]), folder / f"{kind}.pt", kind, args.kernels)


def timed(step: Callable[[], None], clock: Callable[[], float]) -> float:
    """Seconds of one call of `step`, the median after one or more calls that do not count."""
    start = clock()
    step()
    if clock() - start < SECONDS:
        for _ in range(3):
            step()
    durations: list[float] = []
    while len(durations) < MIN_STEPS or sum(durations) < SECONDS:
        start = clock()
        step()
        durations.append(clock() - start)
    return statistics.median(durations)


def bare_case(args: argparse.Namespace) -> dict[str, float]:
    """Energies, forces and virial of one ready graph."""
    import torch

    from so3k_md import load
    from so3k_md.graph import to_device
    from so3k_md.kernels.choose import accelerated
    from so3k_md.model.forces import evaluate
    from so3k_md.needs import needs_of
    from so3k_md.structure.build import build_graph

    torch.set_num_threads(1)
    loaded: Any = load(args.file, device=args.device, dtype="float32")
    loaded = accelerated(loaded, args.kernels)
    numbers, positions, group = cluster(args.atoms, args.group_size)
    graph = build_graph(numbers, positions, None, [False] * 3, needs_of(loaded).cutoff, group=group)
    graph = to_device(graph, args.device)
    rest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def step() -> None:
        evaluate(loaded, graph, 1).forces.cpu()

    # the time of the one thread: what else runs on the machine does not count
    seconds = timed(step, time.process_time if args.device == "cpu" else time.perf_counter)
    mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if args.device != "cpu":
        rest, mb = 0.0, torch.cuda.max_memory_allocated() / 2**20
    return {"ms": 1e3 * seconds, "mb": mb, "mb_before": rest, "pairs": graph.idx_i.numel()}


def lammps_case(args: argparse.Namespace) -> dict[str, float]:
    """A step of NVE on some ranks, by LAMMPS' own loop time; memory is that of the largest rank."""
    from so3k_md.engines.lammps import run

    numbers, positions, group = cluster(args.atoms, args.group_size)
    types = np.searchsorted([1, 6, 8], numbers) + 1
    rows = [
        f"{k + 1} {molecule + 1} {kind} {x} {y} {z}"
        for k, (molecule, kind, (x, y, z)) in enumerate(zip(group, types, positions.tolist(), strict=True))
    ]
    box = [f"0 {side + 1.0} {axis}lo {axis}hi" for side, axis in zip(positions.max(0), "xyz", strict=True)]
    masses = ["1 1.008", "2 12.011", "3 15.999"]
    head = ["cluster", "", f"{len(rows)} atoms", "3 atom types", "", *box, "", "Masses", "", *masses, ""]
    per_step = 0.0
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "box.data").write_text("\n".join([*head, "Atoms", "", *rows]) + "\n")
        steps = MIN_STEPS
        for _ in range(2):  # the first, short run tells how many steps fill the time
            (Path(folder) / "in.box").write_text(LAMMPS_INPUT.format(model=args.file, steps=steps))
            done = run("in.box", folder, ranks=args.ranks)
            if done.returncode:
                raise SystemExit(done.stdout[-2000:] + done.stderr)
            line = [line for line in done.stdout.splitlines() if line.startswith("Loop time of")][-1]
            per_step = float(line.split()[3]) / steps
            steps = max(MIN_STEPS, int(SECONDS / per_step))
    mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"ms": 1e3 * per_step, "mb": mb}


def measure(args: argparse.Namespace, folder: Path, kind: str, **case: int) -> dict[str, float]:
    """One case in a process of its own."""
    command = [
        sys.executable,
        __file__,
        "--file",
        str(folder / f"{kind}.pt"),
        "--device",
        args.device,
        "--kernels",
        args.kernels,
    ]
    for name, value in case.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    found = in_process(command)
    print(f"{kind}, {case}: {found['ms']:.1f} ms, {found['mb']:.0f} MB", file=sys.stderr)
    return found


def too_much(runs: dict[str, Any], kind: str, n_atoms: int, args: argparse.Namespace) -> bool:
    """Whether the largest sizes so far say that the next takes too long or too much memory."""
    done = [(int(size), turns[kind]) for size, turns in runs.items() if kind in turns]
    if not done:
        return bool(runs)
    size, turns = done[-1]
    if str(size) != list(runs)[-1]:
        return True
    growth = n_atoms / size
    milliseconds = min(turn["ms"] for turn in turns) * growth ** (2 if kind == "sphc" else 1)
    seconds = (MIN_STEPS + 1) * milliseconds / 1e3
    memory = max((turn["mb"] - turn["mb_before"]) * growth + turn["mb_before"] for turn in turns)
    return seconds > args.case_seconds or memory > args.case_gb * 1000


def sweep(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One group of each size, as far as time and memory allow."""
    runs: dict[str, Any] = {}
    for n_atoms in args.sizes:
        kinds = [kind for kind in KINDS if not too_much(runs, kind, n_atoms, args)]
        if not kinds:
            break
        turns: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
        for _ in range(args.rounds):
            for kind in kinds:
                turns[kind].append(measure(args, folder, kind, atoms=n_atoms, group_size=n_atoms))
        runs[str(n_atoms)] = turns
    return runs


def several(args: argparse.Namespace, folder: Path, cases: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Named cases, all kinds in turn."""
    runs: dict[str, Any] = {name: {kind: [] for kind in KINDS} for name in cases}
    for name, case in cases.items():
        for _ in range(args.rounds):
            for kind in KINDS:
                runs[name][kind].append(measure(args, folder, kind, **case))
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="atoms of the one group")
    parser.add_argument("--case-seconds", type=float, default=60.0, help="a kind stops before a longer case")
    parser.add_argument("--case-gb", type=float, default=12.0, help="and before a larger one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--features", type=int, default=132)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--cutoff", type=float, default=5.0, help="Å")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--kernels", choices=("auto", "off"), default="auto", help="compiled kernels or not")
    parser.add_argument("--no-lammps", action="store_true", help="without LAMMPS on 1 and 2 ranks")
    parser.add_argument("--output", help="writes OUTPUT.json and OUTPUT.png")
    for name in ("--file", "--atoms", "--group-size", "--ranks"):
        parser.add_argument(name, type=str if name == "--file" else int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.file:
        print(json.dumps(lammps_case(args) if args.ranks else bare_case(args)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_models(folder, args)
        settings = {
            key: getattr(args, key) for key in ("features", "layers", "cutoff", "device", "kernels", "rounds")
        }
        results: dict[str, Any] = {"settings": settings, "one_group": sweep(args, folder)}
        small = {f"{n} atoms in groups of {g}": {"atoms": n, "group_size": g} for n, g in SMALL_GROUPS}
        results["small_groups"] = several(args, folder, small)
        if not args.no_lammps:
            lammps = {
                f"{n} atoms, {ranks} rank{'s' * (ranks > 1)}": {"atoms": n, "group_size": n, "ranks": ranks}
                for n in LAMMPS_SIZES
                for ranks in (1, 2)
            }
            results["lammps"] = several(args, folder, lammps)
    print(markdown(results))
    if args.output:
        Path(f"{args.output}.json").write_text(json.dumps(results, indent=1) + "\n")
        Path(f"{args.output}.png").write_bytes(draw(results))


if __name__ == "__main__":
    main()
