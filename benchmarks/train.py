"""Structures per second and memory of a training step (energy and force loss, backward, Adam).

python benchmarks/train.py
"""

import argparse
import resource
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

from so3k_md import ModelConfig, So3krates
from so3k_md.data import Dataset, read_frames
from so3k_md.model.forces import evaluate
from so3k_md.train.config import LossConfig, TrainConfig
from so3k_md.train.loss import errors, weighted_loss
from so3k_md.train.optimizer import optimizer_of

DATA = Path(__file__).parents[1] / "simulations" / "data" / "rmd17" / "rmd17_ethanol_train01.npz"
MODELS = {
    "so3krates-2022": ModelConfig.preset("so3krates-2022"),
    "so3krates-2022, 3 layers (shipped)": replace(ModelConfig.preset("so3krates-2022"), layers=3),
    "euclidean-2024": ModelConfig.preset("euclidean-2024"),
    "invariant-2024": ModelConfig.preset("invariant-2024"),
}


def seconds_per_step(config: ModelConfig, batch_size: int, device: str, steps: int) -> float:
    """Median time of a step after three that do not count."""
    dataset = Dataset(read_frames(DATA)[:batch_size], config.cutoff)
    graph, targets = dataset.batch(range(batch_size)).to(device)
    model = So3krates(config).to(device)
    optimizer = optimizer_of(model, TrainConfig())
    durations = []
    for _ in range(steps + 3):
        start = time.perf_counter()
        evaluation = evaluate(model, graph, batch_size, differentiable=True)
        optimizer.zero_grad()
        weighted_loss(errors(evaluation, graph, targets), LossConfig()).backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations[3:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print("| model | parameters | batch | ms/step | structures/s | peak memory so far |")
    print("|---|---|---|---|---|---|")
    for name, config in MODELS.items():
        parameters = sum(parameter.numel() for parameter in So3krates(config).parameters())
        for batch_size in (5, 20):
            seconds = seconds_per_step(config, batch_size, args.device, args.steps)
            megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"| {name} | {parameters:,} | {batch_size} | {1e3 * seconds:.0f} "
                f"| {batch_size / seconds:.0f} | {megabytes:.0f} MB |"
            )


if __name__ == "__main__":
    main()
