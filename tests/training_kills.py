"""Trainings that are killed at random moments and within writes, compared with one that was not.

python tests/training_kills.py --kills 60 --seed 0
"""

import argparse
import csv
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
import yaml
from ase.build import molecule
from ase.calculators.emt import EMT

from so3k_md.checkpoint import read_checkpoint
from so3k_md.cli import main

EPOCHS = 12
KILLS_PER_RUN = 4
SECTIONS = {
    "model": {"features": 12, "heads": 2, "layers": 1, "degrees": [1, 2, 3], "n_rbf": 4},
    "data": {"train": "frames.xyz", "n_valid": 2, "accept_units": True},
    "train": {"epochs": EPOCHS, "batch_size": 2, "warmup_steps": 4},
}
MOMENTS = ("any", "half written", "before the rename", "after the rename")
RUN_FILES = {"best.ckpt", "last.ckpt", "config.yaml", "log.csv", "learning_curve.png", "tensorboard"}


def write_frames(folder: Path) -> None:
    """frames.xyz: 12 frames of ethanol, labelled by effective medium theory."""
    rng = np.random.default_rng(0)
    frames = [molecule("CH3CH2OH") for _ in range(12)]
    for atoms in frames:
        atoms.positions += 0.03 * rng.normal(size=atoms.positions.shape)
        atoms.calc = EMT()
        atoms.get_potential_energy(), atoms.get_forces()
    ase.io.write(folder / "frames.xyz", frames, format="extxyz")


def write_input(folder: Path) -> None:
    """A training file beside its frames."""
    write_frames(folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(SECTIONS))


def kill_within_write(moment: str, number: int) -> None:
    """Arrange that this process kills itself in the given atomic write, counted from 1."""
    rename, count = os.replace, 0

    def killing(source: Any, target: Any) -> None:
        nonlocal count
        count += 1
        if count == number and moment == "half written":
            os.truncate(source, os.path.getsize(source) // 2)
        if count != number or moment == "after the rename":
            rename(source, target)
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = killing


def start(words: list[str], output: Path, moment: str = "any", number: int = 0) -> int:
    """Run `so3k-md train` in a child; returns its process."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        with open(output, "a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        if moment != "any":
            kill_within_write(moment, number)
        code = main(words)
    finally:
        os._exit(code)


def ended(process: int, after: float | None = None) -> int:
    """The exit code of a child, negative where a signal ended it; SIGKILL after so many seconds."""
    if after is not None:
        limit = time.monotonic() + after
        while time.monotonic() < limit:
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
        os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def torn_files(run: Path) -> list[str]:
    """Files under their final name that are not whole."""
    torn = []
    for name in ("last.ckpt", "best.ckpt"):
        try:
            if (run / name).exists():
                read_checkpoint(run / name)
        except Exception as error:
            torn.append(f"{name}: {error}")
    if (run / "log.csv").exists():
        text = (run / "log.csv").read_text()
        rows = list(csv.reader(text.splitlines()))
        if not text.endswith("\n") or len({len(row) for row in rows}) != 1:
            torn.append("log.csv")
    if (run / "config.yaml").exists() and set(yaml.safe_load((run / "config.yaml").read_text())) != {
        "model", "data", "loss", "train"
    }:  # fmt: skip
        torn.append("config.yaml")
    return torn


def log_rows(run: Path) -> list[dict[str, str]]:
    """The table without its times."""
    with open(run / "log.csv") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def tensorboard_steps(run: Path) -> list[int]:
    """Steps of the validation loss as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return [event.step for event in events.Scalars("valid_loss")]


def same(one: Any, other: Any) -> bool:
    """Whether two documents of checkpoints are equal bit for bit; times and folder names apart."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or one != one and other != other


def state(path: Path) -> dict[str, Any]:
    """A checkpoint without the wall times of its log and the name of its folder."""
    document = read_checkpoint(path)
    document["facts"]["metadata"] = json.loads(document["facts"]["metadata"]) | {"name": ""}
    if "rows" in document["training"]:
        document["training"]["rows"] = [[*row[:8], *row[9:]] for row in document["training"]["rows"]]
    return document


def differences(run: Path, whole: Path) -> list[str]:
    """In what a finished run differs from the uninterrupted one."""
    found = [name for name in ("last.ckpt", "best.ckpt") if not same(state(run / name), state(whole / name))]
    ours, theirs = log_rows(run), log_rows(whole)
    if ours != theirs:
        epochs = [row["epoch"] for row in ours]
        twice, lost = len(epochs) - len(set(epochs)), len({row["epoch"] for row in theirs} - set(epochs))
        found.append(f"log.csv: {twice} rows twice, {lost} lost")
    if tensorboard_steps(run) != tensorboard_steps(whole):
        found.append(f"tensorboard: steps {tensorboard_steps(run)}")
    if (run / "config.yaml").read_bytes() != (whole / "config.yaml").read_bytes():
        found.append("config.yaml")
    if left := {path.name for path in run.iterdir()} ^ RUN_FILES:
        found.append(f"leftovers or missing: {sorted(left)}")
    return found


def series(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill trainings in `folder` so many times; what was found after each kill and each end."""
    rng = random.Random(seed)
    os.chdir(folder)
    write_input(folder)
    command = ["train", "config.yaml", "-o"]
    begun = time.monotonic()
    if code := ended(start([*command, "whole"], folder / "whole.txt")):
        raise SystemExit(f"the uninterrupted run ended with {code}: {(folder / 'whole.txt').read_text()}")
    duration = time.monotonic() - begun
    counts = dict.fromkeys(MOMENTS, 0)
    torn, refused, different, runs = [], [], [], 0
    while sum(counts.values()) < kills:
        runs += 1
        run, output = folder / f"run{runs}", folder / f"run{runs}.txt"
        words = [*command, run.name]
        for _ in range(min(KILLS_PER_RUN, kills - sum(counts.values()))):
            moment = rng.choice(MOMENTS)
            process = start(words, output, moment, rng.randint(1, 2 * EPOCHS))
            code = ended(process, rng.uniform(0, duration) if moment == "any" else None)
            if code == -signal.SIGKILL:
                counts[moment] += 1
                torn += [f"{run.name}, {moment}: {each}" for each in torn_files(run)]
            elif code:
                refused.append(f"{run.name}: {output.read_text().splitlines()[-1]}")
                break
            words = [*command, run.name, *(["--resume"] if (run / "config.yaml").exists() else [])]
            if code == 0:
                break
        if code := ended(start(words, output)):
            refused.append(f"{run.name}, exit code {code}: {output.read_text().splitlines()[-1]}")
        else:
            different += [f"{run.name}: {each}" for each in differences(run, folder / "whole")]
    return {"kills": counts, "runs": runs, "torn": torn, "refused": refused, "different": different}


def print_table(result: dict[str, Any]) -> None:
    """What happened, as text."""
    for moment, count in result["kills"].items():
        print(f"kills, {moment:<20}{count:>5}")
    print(f"{'runs to their end':<27}{result['runs']:>5}")
    for name in ("torn", "refused", "different"):
        print(f"{name:<27}{len(result[name]):>5}", *result[name][:20], sep="\n  ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        outcome = series(Path(scratch), arguments.kills, arguments.seed)
    print_table(outcome)
    sys.exit(1 if outcome["torn"] or outcome["refused"] or outcome["different"] else 0)
