"""Fine-tuning of SO3LR here and in so3krates-torch, at equal CPU time, in one run.

    so3k-md import so3lr -o so3lr.pt
    python benchmarks/finetune.py so3lr.pt --set ethanol train.xyz test.xyz --output finetune.json

Each set is a file of training frames and a file of test frames (extended XYZ; energy and forces in eV and Å).
The strategies of so3k-md run with their default settings. so3krates-torch then gets at least the CPU time of
the slowest of them, by the number of its epochs, which a trial of TRIAL epochs fixes; its learning rate falls
to a hundredth. All results are judged by the same code: the model of so3krates-torch is imported. Mean
absolute errors, energies after the element energies that fit the set best. One thread.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from engines import markdown

from so3k_md.checkpoint import load
from so3k_md.data import Frame, read_frames
from so3k_md.data.write import write_extxyz
from so3k_md.evaluate import predict, score
from so3k_md.train.finetune import fitted
from so3k_md.train.start import element_errors

OURS = ("full", "lora", "last", "head")
PEER = ("naive", "lora", "last_layer")  # `finetune_choice` of so3krates-torch
BATCH = 5
RATE = 1e-3
TRIAL = 2  # epochs
SHAPE = {  # SO3LR in the words of so3krates-torch
    "degrees": [1, 2, 3, 4],
    "r_max": 4.5,
    "r_max_lr": 12.0,
    "dispersion_energy_cutoff_lr_damping": 2.0,
    "cutoff_fn": "phys",
    "layer_normalization_1": True,
    "layer_normalization_2": True,
    "residual_mlp_1": True,
    "residual_mlp_2": True,
    "use_charge_embed": True,
    "use_spin_embed": True,
    "compute_avg_num_neighbors": False,
}


class Result(NamedTuple):
    """One fine-tuning."""

    cpu_seconds: float
    energy: float  # meV/atom
    forces: float  # meV/Å


def timed(command: Sequence[str], folder: Path) -> float:
    """CPU seconds of a command that runs in a folder with one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{(folder / 'log.txt').read_text()[-2000:]}")
    return usage.ru_utime + usage.ru_stime


def errors(model: str, test: Sequence[Frame]) -> tuple[float, float]:
    """Energy in meV/atom and forces in meV/Å of a model file on test frames."""
    found = score(test, fitted(test, predict(load(model), test)))
    energy, forces = found["energy_per_atom"], found["forces"]
    return tuple(1e3 * part.mae if part else float("nan") for part in (energy, forces))


def ours(strategy: str, model: str, train: str, test: Sequence[Frame], folder: Path) -> Result:
    """A fine-tuning by `so3k-md finetune`."""
    command = [sys.executable, "-m", "so3k_md", "finetune", model, train, "--strategy", strategy]
    seconds = timed([*command, "-o", "run", "--overwrite"], folder)
    return Result(seconds, *errors(str(folder / "run" / "best.ckpt"), test))


def peer(
    choice: str, model: str, train: str, test: Sequence[Frame], folder: Path, seconds: float, program: str
) -> Result:
    """A fine-tuning by so3krates-torch that takes at least so many CPU seconds.

    It gets energies without the element energies that separate the two levels of theory, because it has no
    refit of its own that starts from the model's energies.
    """
    frames = read_frames(train)
    shift = element_errors(frames, predict(load(model), frames))
    entries = [
        (f, {"REF_energy": f.energy - sum(shift[z] for z in f.numbers.tolist())}, {"REF_forces": f.forces})
        for f in frames
    ]
    write_extxyz(folder / "train.xyz", entries)
    trial = timed(peer_command(program, choice, folder, "trial", TRIAL), folder)
    once = timed(peer_command(program, choice, folder, "once", 1), folder)
    epochs = max(1, round((seconds - once) / max(1e-3, (trial - once) / (TRIAL - 1))) + 1)
    spent = timed(peer_command(program, choice, folder, "run", epochs), folder)
    importing = [sys.executable, "-m", "so3k_md", "import", "run.model", "-o", "run.pt", "--overwrite"]
    timed([*importing, "--elements", symbols(frames)], folder)
    return Result(spent, *errors(str(folder / "run.pt"), test))


def symbols(frames: Sequence[Frame]) -> str:
    """The elements of the frames, as `so3k-md import --elements` takes them."""
    from ase.data import chemical_symbols

    return ",".join(chemical_symbols[z] for z in sorted({int(z) for f in frames for z in f.numbers}))


def peer_command(program: str, choice: str, folder: Path, name: str, epochs: int) -> list[str]:
    """The command of so3krates-torch; writes its configuration."""
    spec = importlib.util.find_spec("so3krates_torch")
    if spec is None or spec.origin is None:
        raise SystemExit("so3krates-torch is not installed: pip install 'so3k-md[so3lr]'")
    pretrained = Path(spec.origin).parent / "pretrained" / "so3lr" / "so3lr.model"
    document: dict[str, Any] = {
        "GENERAL": {"name_exp": name, "default_dtype": "float32", "seed": 0},
        "ARCHITECTURE": SHAPE,
        "TRAINING": {
            "batch_size": BATCH,
            "valid_batch_size": 50,
            "lr": RATE,
            "num_epochs": epochs,
            "lr_scheduler_gamma": 0.01 ** (1 / epochs),
            "path_to_train_data": "train.xyz",
            "valid_ratio": 0.1,
            "patience": epochs,
            "pretrained_model": str(pretrained),
            "finetune_choice": choice,
            "ema": True,
            "num_workers": 0,
        },
        "MISC": {"device": "cpu", "restart_latest": False},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return [program, "--config", path.name]


def run_set(model: str, train: str, test: str, args: argparse.Namespace) -> dict[str, Result]:
    """All fine-tunings of one set."""
    frames = read_frames(test)
    results = {"before": Result(0.0, *errors(model, frames))}
    for strategy in args.ours:
        with tempfile.TemporaryDirectory() as folder:
            results[f"so3k-md, {strategy}"] = ours(strategy, model, train, frames, Path(folder))
        print(f"{train}, {strategy}: {results[f'so3k-md, {strategy}']}", file=sys.stderr)
    longest = max(result.cpu_seconds for result in results.values())
    for choice in args.peer:
        with tempfile.TemporaryDirectory() as folder:
            results[f"so3krates-torch, {choice}"] = peer(
                choice, model, train, frames, Path(folder), longest, args.peer_program
            )
        print(f"{train}, {choice}: {results[f'so3krates-torch, {choice}']}", file=sys.stderr)
    return results


def table(results: dict[str, dict[str, Result]]) -> str:
    """Markdown: errors and CPU seconds of each fine-tuning on each set."""
    rows: dict[str, list[str]] = {}
    for found in results.values():
        for name, result in found.items():
            cell = f"{result.energy:.2f} / {result.forces:.1f}"
            rows.setdefault(name, []).append(
                cell + (f" ({result.cpu_seconds:.0f} s)" if result.cpu_seconds else "")
            )
    return markdown("E meV/atom / F meV/Å (CPU time)", list(results), rows)


def main() -> None:
    """Fine-tune on all sets and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="what so3k-md import so3lr wrote")
    parser.add_argument("--set", nargs=3, action="append", required=True, metavar=("NAME", "TRAIN", "TEST"))
    parser.add_argument("--ours", nargs="*", default=list(OURS), choices=OURS)
    parser.add_argument("--peer", nargs="*", default=list(PEER))
    parser.add_argument("--peer-program", default="torchkrates-train", help="the trainer of so3krates-torch")
    parser.add_argument("--output", help="JSON file of all results")
    args = parser.parse_args()
    begun = time.monotonic()
    model = str(Path(args.model).resolve())
    results = {}
    for name, train, test in args.set:
        results[name] = run_set(model, str(Path(train).resolve()), test, args)
        if args.output:
            document = {key: {k: v._asdict() for k, v in found.items()} for key, found in results.items()}
            Path(args.output).write_text(json.dumps(document, indent=1))
    print(table(results))
    print(f"took {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
