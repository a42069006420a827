"""A molecular dynamics step of SO3LR here and of other machine-learned force fields, all measured in one run.

    so3k-md import so3lr -o so3lr.pt --dtype float32 && so3k-md kernels build && so3k-md lammps build
    python benchmarks/peers.py so3lr.pt --rounds 2 --output peers.json

The same structures, float32, one and two threads. Each case is a process of its own, whose peak memory is
told as well, in brackets without what its imports take; the cases of a structure take turns, and ratios are
medians of the ratios within a turn. Other programs are run by their own ASE calculators (peer_codes.py); one
that cannot be imported is left out with a line that says so. Programs that cannot share an environment can be
installed in others: `--python` names interpreters, of which a case takes the first that can import it.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import ase.io
from ase import Atoms
from engines import MIN_STEPS, in_process, lammps_engine, markdown, openmm_engine
from peer_codes import CODES, JAX
from so3lr_vs_peer import ours, relaxed, run_case, verlet

BASE = "so3k-md, ASE"
STRUCTURES = {"alanine dipeptide": 22, "64 waters": 192, "512 waters": 1536}  # atoms
Structures = dict[
    str, dict[str, list[dict[str, float]]]
]  # results by structure, case and turn; {} if it failed
Results = dict[str, Structures]  # by number of threads


class Case(NamedTuple):
    """A step of dynamics in one program."""

    seconds: Callable[[Atoms, str], float]
    module: str  # imported before memory is counted
    in_child: bool = False  # whether the memory is that of a process that the case starts


OURS = {
    BASE: Case(ours, "so3k_md.engines.ase"),
    "so3k-md, OpenMM": Case(
        lambda atoms, model: openmm_engine(atoms, model, "cpu", "auto"), "so3k_md.engines.openmm"
    ),
    "so3k-md, LAMMPS": Case(
        lambda atoms, model: lammps_engine(atoms, model, "cpu", 1), "so3k_md.engines.lammps", True
    ),
}


def case_of(name: str) -> Case:
    """A case by its name."""
    if name in OURS:
        return OURS[name]
    code = CODES[name]
    return Case(lambda atoms, model: verlet(atoms, code.calculator()), code.module)


def environment(folder: str | None) -> dict[str, str]:
    """Variables of a process that may import from a folder; its OpenMP threads do not wait in loops."""
    paths = [path for path in (folder, os.environ.get("PYTHONPATH")) if path]
    return {"OMP_WAIT_POLICY": "passive", "PYTHONPATH": os.pathsep.join(paths)}


def interpreter(module: str, pythons: list[str], folder: str | None) -> str | None:
    """The first interpreter that can import a module."""
    for python in pythons:
        settings = {**os.environ, **environment(folder)}
        done = subprocess.run([python, "-c", f"import {module}"], capture_output=True, env=settings)
        if done.returncode == 0:
            return python
    return None


def available(args: argparse.Namespace) -> dict[str, str]:
    """The interpreter of each case; says why others are left out."""
    pythons = dict.fromkeys(OURS, sys.executable)
    for name in args.codes:
        if name == JAX and not args.jax:
            print(
                f"{name}: left out, --jax names a folder with their packages so3lr, mlff and glp",
                file=sys.stderr,
            )
            continue
        python = interpreter(CODES[name].module, args.python, args.jax if name == JAX else None)
        if python:
            pythons[name] = python
        else:
            print(f"{name}: left out, not importable: pip install {CODES[name].install}", file=sys.stderr)
    return pythons


def measure(name: str, python: str, file: str, threads: int, args: argparse.Namespace) -> dict[str, float]:
    """One case, of a structure in a file, in a process of its own; nothing if it fails or takes too long."""
    command = [python, __file__, args.model, "--case", name, "--structure", file, "--threads", str(threads)]
    settings = environment(args.jax if name == JAX else None)
    try:
        return in_process(command, threads, args.case_seconds, **settings)
    except subprocess.TimeoutExpired:
        print(f"{name}: took more than {args.case_seconds:.0f} s", file=sys.stderr)
    except SystemExit as error:
        if name == BASE:
            raise
        print(f"{name} failed:\n{error}", file=sys.stderr)
    return {}


def too_much(before: dict[str, float], growth: float, args: argparse.Namespace) -> bool:
    """Whether time or memory of a case, linear in the atoms, would go beyond the limits.

    Args:
        before: of the next smaller structure.
        growth: number of atoms relative to it.
        args: its limits.
    """
    seconds = 1e-3 * before["ms"] * growth * 2 * MIN_STEPS
    return seconds > args.case_seconds or before["over"] * growth > 1000 * args.case_gb


def table(results: Structures) -> str:
    """Markdown: ms/step, time relative to BASE in the same turn, and peak memory; – where a case failed."""
    rows: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for cases in results.values() for name in cases):
        cells = rows.setdefault(name, [])
        for cases in results.values():
            turns = cases.get(name, [])
            both = [pair for pair in zip(turns, cases[BASE], strict=False) if all(pair)]
            if not both:
                cells.append("–")
                continue
            ms = statistics.median(turn["ms"] for turn, _ in both)
            ratio = statistics.median(turn["ms"] / base["ms"] for turn, base in both)
            mb, over = (max(turn[key] for turn, _ in both) for key in ("mb", "over"))
            rest = "" if case_of(name).in_child else f" ({over:.0f})"
            cells.append(f"{ms:.1f} ms, {ratio:.1f}×, {mb:.0f} MB{rest}")
    return markdown("case", list(results), rows)


def turn(
    sizes: Structures,
    structure: str,
    file: str,
    threads: int,
    pythons: dict[str, str],
    args: argparse.Namespace,
) -> None:
    """Measure each case of a structure once, but for those that failed or would take too much.

    Args:
        sizes: results of this and of smaller structures; those of the turn are added.
        structure: one of STRUCTURES.
        file: of the structure.
        threads: number of threads.
        pythons: interpreters of the cases.
        args: limits and further settings.
    """
    cases = sizes.setdefault(structure, {})
    before = ([name for name in sizes if name != structure] or [None])[-1]
    for name, python in pythons.items():
        if before is not None:
            last = sizes[before].get(name, [{}])[-1]
            if not last or too_much(last, STRUCTURES[structure] / STRUCTURES[before], args):
                continue
        found = measure(name, python, file, threads, args)
        cases.setdefault(name, []).append(found)
        print(f"{structure}, {threads} threads, {name}: {found}", file=sys.stderr)


def rounds(args: argparse.Namespace, write: Callable[[Results], None]) -> Results:
    """All cases in turns, smallest structure first; `write` gets the results after each turn."""
    results: Results = {str(threads): {} for threads in args.threads}
    pythons = available(args)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "start.extxyz")
        for structure in sorted(args.structures, key=lambda name: STRUCTURES[name]):
            ase.io.write(file, relaxed(structure, args.model))
            for _ in range(args.rounds):
                for threads in args.threads:
                    turn(results[str(threads)], structure, file, threads, pythons, args)
                    write(results)
    return results


def main() -> None:
    """Measure all cases in turns and print a table for each number of threads."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="what so3k-md import so3lr wrote")
    parser.add_argument("--structures", nargs="+", default=list(STRUCTURES), choices=STRUCTURES)
    parser.add_argument("--codes", nargs="*", default=list(CODES), choices=list(CODES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="interpreters of the others")
    parser.add_argument("--jax", help="folder with the authors' packages (so3lr, mlff, glp, jraph, jax_md)")
    parser.add_argument("--case-seconds", type=float, default=600.0, help="leave longer cases out")
    parser.add_argument("--case-gb", type=float, default=10.0, help="leave larger cases out")
    parser.add_argument("--output", help="JSON file for all single results, written after each turn")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--structure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        case = case_of(args.case)
        importlib.import_module(case.module)
        run_case(case.seconds, args.structure, args.model, case.in_child, args.threads[0])
        return

    def write(results: Results) -> None:
        if args.output:
            Path(args.output).write_text(json.dumps(results, indent=1) + "\n")

    for threads, results in rounds(args, write).items():
        print(f"\n{threads} threads\n\n{table(results)}")


if __name__ == "__main__":
    main()
