"""Trainings whose errors make a table: each is resumable, and its results are kept in a file as they come.

A study is a folder of a run with its training file. `so3k-md train` trains it, as long as the caller allows.
Then its best checkpoint is evaluated on test frames, whether the training is finished or not.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from so3k_md.checkpoint import load, read_checkpoint
from so3k_md.data import read_frames
from so3k_md.evaluate import predict, score

# Settings of all studies, unless one says otherwise.
LOSS = {"energy": 0.03, "forces": 0.97}
TRAIN: dict[str, Any] = {
    "batch_size": 10,
    "tensorboard": False,
}
GRACE = 300.0  # s, in which a training that was told to stop saves its state


class Study(NamedTuple):
    """One training and the frames on which it is judged."""

    name: str
    model: dict[str, Any]
    data: dict[str, Any]
    train: dict[str, Any]  # replaces values of TRAIN
    tests: dict[str, str]  # file by the name of the set
    keys: dict[str, Any]  # keys of labels in the test files, as `read_frames` takes them


class Outcome(NamedTuple):
    """The state of a study."""

    finished: bool
    epochs: int
    cpu_hours: float
    parameters: int
    errors: dict[str, dict[str, float]]  # by set: energy in meV, forces in meV/Å; mean absolute errors
    valid: list[tuple[int, float]]  # epoch and force MAE of some validations, meV/Å


RESULTS = Path(__file__).parent / "results"


def main(
    doc: str,
    name: str,
    studies: Callable[[argparse.Namespace], Sequence[Study]],
    table: Callable[[], str],
    add: Callable[[argparse.ArgumentParser], None],
) -> None:
    """Train the studies of a benchmark and print its table.

    Args:
        doc: docstring of the benchmark.
        name: of the file of its results.
        studies: all of them, from the arguments.
        table: from the results.
        add: declares the arguments of this benchmark alone.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data files")
    parser.add_argument("--runs", type=Path, default=Path("runs") / name, help="folder of the runs")
    parser.add_argument("--hours", type=float, default=1.0, help="wall time of all trainings together")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the table of the results so far")
    add(parser)
    args = parser.parse_args()
    if not args.table:
        if args.data is None:
            parser.error("name the folder of the data files: --data FOLDER")
        RESULTS.mkdir(exist_ok=True)
        args.data = args.data.resolve()
        run(studies(args), args.runs, RESULTS / f"{name}.json", args.hours, args.threads)
    print(table())


def shown(outcome: Outcome | None, name: str) -> str:
    """A cell of a table: errors on a set, CPU hours, and the epoch of a training that is not finished."""
    if outcome is None or name not in outcome.errors:
        return "-"
    errors = outcome.errors[name]
    energy, forces = (f"{errors[key]:.2f}" if key in errors else "-" for key in ("energy", "forces"))
    state = "" if outcome.finished else f", epoch {outcome.epochs}"
    return f"{energy} / {forces} ({outcome.cpu_hours:.1f} CPU h{state})"


def run(
    studies: Sequence[Study], runs: Path, results: Path, hours: float, threads: int
) -> dict[str, Outcome]:
    """Train the studies one after the other within a time; returns the results of all that began.

    Args:
        studies: in their order.
        runs: folder of the runs.
        results: JSON file, rewritten after each study.
        hours: of wall time, for all of them together.
        threads: of each training.
    """
    found = read(results)
    deadline = time.monotonic() + 3600 * hours
    for study in studies:
        before = found.get(study.name)
        left = deadline - time.monotonic()
        if (before is not None and before.finished) or left <= GRACE:
            continue
        spent = train(study, runs, left - GRACE, threads)
        if not (runs / study.name / "best.ckpt").exists():
            continue
        found[study.name] = judge(study, runs, spent + (before.cpu_hours if before else 0.0))
        document = {name: outcome._asdict() for name, outcome in sorted(found.items())}
        results.write_text(json.dumps(document, indent=1) + "\n")
        print(f"{study.name}: {found[study.name]}", file=sys.stderr)
    return found


def read(results: Path) -> dict[str, Outcome]:
    """The results so far."""
    document = json.loads(results.read_text()) if results.exists() else {}
    return {name: Outcome(**values) for name, values in document.items()}


def train(study: Study, runs: Path, seconds: float, threads: int) -> float:
    """Begin or continue a training; after `seconds` it is told to stop. Returns CPU hours."""
    folder = runs / study.name
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = runs / f"{study.name}.yaml"
    sections = {"model": study.model, "data": study.data, "loss": LOSS, "train": TRAIN | study.train}
    file.write_text(yaml.safe_dump(sections, sort_keys=False))
    words = [sys.executable, "-m", "so3k_md", "train", str(file), "-o", str(folder)]
    words += ["--resume"] if (folder / "last.ckpt").exists() else ["--overwrite"]
    with (runs / f"{study.name}.txt").open("a") as log:
        process = subprocess.Popen(
            words, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, stdout=log, stderr=log
        )
        limit = time.monotonic() + seconds
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > limit:
                process.send_signal(signal.SIGTERM)
                limit += GRACE
            time.sleep(0.5)
    process.returncode = os.waitstatus_to_exitcode(status)
    # the signal ends a training that has not yet begun its first step
    if process.returncode not in (0, 128 + signal.SIGTERM, -signal.SIGTERM):
        raise SystemExit(f"{study.name} failed: see {runs / f'{study.name}.txt'}")
    return (usage.ru_utime + usage.ru_stime) / 3600


def judge(study: Study, runs: Path, cpu_hours: float) -> Outcome:
    """Errors of the best checkpoint so far."""
    folder = runs / study.name
    model = load(folder / "best.ckpt")
    errors = {}
    for name, file in study.tests.items():
        frames = read_frames(file, **study.keys)
        found = score(frames, predict(model, frames))
        errors[name] = {key: 1e3 * part.mae for key in ("energy", "forces") if (part := found[key])}
    progress = read_checkpoint(folder / "last.ckpt")["training"]
    with (folder / "log.csv").open() as log:
        rows = [
            (int(row["epoch"]), float(row["valid_forces_mae_mev_per_angstrom"]))
            for row in csv.DictReader(log)
        ]
    chosen = rows[:: max(1, len(rows) // 10)]
    return Outcome(
        finished=progress["epoch"] >= progress["config"]["train"]["epochs"],
        epochs=progress["epoch"],
        cpu_hours=round(cpu_hours, 3),
        parameters=sum(weight.numel() for weight in model.parameters()),
        errors=errors,
        valid=[(epoch, round(mae, 2)) for epoch, mae in chosen],
    )
