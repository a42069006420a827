"""Structures per second of a training step, with plain layers and with kernels, in turns.

    python benchmarks/train.py
    python benchmarks/train.py --data rmd17_aspirin_train01.npz

A step is all that `so3k-md train` does for a batch: joining the graphs, energy and force loss, backward pass,
clipping, optimiser and average. Both forms take turns; the ratio is the median over the turns, in CPU time.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from engines import markdown

from so3k_md import ModelConfig, So3krates
from so3k_md.data import Dataset, Frame, fit_statistics, read_frames
from so3k_md.kernels.training import training_parts
from so3k_md.model.forces import evaluate
from so3k_md.model.parts import PLAIN, Parts
from so3k_md.train.config import LossConfig, TrainConfig
from so3k_md.train.loss import errors, weighted_loss
from so3k_md.train.optimizer import optimizer_of, update_average

DATA = Path(__file__).parents[1] / "simulations" / "data" / "rmd17" / "rmd17_ethanol_train01.npz"
MODELS = {
    "so3krates-2022": ModelConfig.preset("so3krates-2022"),
    "so3krates-2022, 3 layers": replace(ModelConfig.preset("so3krates-2022"), layers=3),
    "euclidean-2024": ModelConfig.preset("euclidean-2024"),
    "invariant-2024": ModelConfig.preset("invariant-2024"),
}
FRAMES = 50
WARM_UP = 4  # turns that do not count


class Speed(NamedTuple):
    """Structures per CPU second of both forms, and their ratio."""

    plain: float
    kernels: float
    ratio: float


def step_of(
    config: ModelConfig, parts: Parts, frames: Sequence[Frame], settings: TrainConfig
) -> Callable[[], None]:
    """A training step on a random batch.

    Args:
        config: shape of the model.
        parts: of the model.
        frames: from which batches are drawn.
        settings: of the optimiser.
    """
    model = So3krates(config, parts=parts)
    statistics_ = fit_statistics(frames)
    for z, shift in statistics_.shift.items():
        model.energies.head.shift[z] = shift
    model.energies.head.scale.fill_(statistics_.scale)
    dataset = Dataset(frames, config.cutoff, model)
    optimizer = optimizer_of(model, settings)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    weights = list(model.parameters())
    rng, loss = np.random.default_rng(0), LossConfig(energy=0.03, forces=0.97)

    def step() -> None:
        graph, targets = dataset.batch(rng.choice(len(frames), settings.batch_size, replace=False))
        found = evaluate(model, graph, settings.batch_size, differentiable=True)
        optimizer.zero_grad()
        weighted_loss(errors(found, graph, targets), loss).backward(inputs=weights)
        torch.nn.utils.clip_grad_norm_(weights, settings.clip_norm)
        optimizer.step()
        update_average(average, model, 1000, settings.ema)

    return step


def compare(config: ModelConfig, frames: Sequence[Frame], settings: TrainConfig, turns: int) -> Speed:
    """The speed of both forms, which take turns."""
    parts, reason = training_parts(config, "cpu", torch.float32)
    if parts is PLAIN:
        raise SystemExit(f"no kernels: {reason}")
    steps = [step_of(config, form, frames, settings) for form in (PLAIN, parts)]
    durations: list[list[float]] = []
    for _ in range(turns + WARM_UP):
        turn = []
        for step in steps:
            start = time.process_time()
            step()
            turn.append(time.process_time() - start)
        durations.append(turn)
    plain, kernels = zip(*durations[WARM_UP:], strict=True)
    ratio = statistics.median(p / k for p, k in zip(plain, kernels, strict=True))
    speeds = (settings.batch_size / statistics.median(times) for times in (plain, kernels))
    return Speed(*speeds, ratio)


def main() -> None:
    """Measure all models and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="npz file of rMD17")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--optimizer", default="adamw", choices=("adamw", "muon"))
    parser.add_argument("--batches", type=int, nargs="+", default=[5, 10])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    frames = read_frames(args.data, energy_key="E", forces_key="F")[:FRAMES]
    rows = {}
    for name in args.models:
        for batch in args.batches:
            settings = TrainConfig(batch_size=batch, optimizer=args.optimizer)
            found = compare(MODELS[name], frames, settings, args.turns)
            cells = [f"{found.plain:.0f}", f"{found.kernels:.0f}", f"{found.ratio:.1f}×"]
            rows[f"{name}, batch {batch}"] = cells
    print(markdown("structures/s", ["plain layers", "kernels", "ratio"], rows))


if __name__ == "__main__":
    main()
