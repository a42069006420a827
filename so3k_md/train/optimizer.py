"""Adam with decoupled weight decay, its learning rate, and the running average of the weights."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from so3k_md.train.config import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW without weight decay for biases, norms and scales."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, amsgrad=config.amsgrad, fused=True)


def learning_rate(step: int, n_steps: int, config: TrainConfig) -> float:
    """Linear warm-up, then exponential or cosine decay from the first to the final rate.

    Args:
        step: steps taken so far.
        n_steps: steps of the whole training.
        config: the rates.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, n_steps - config.warmup_steps)
    first, final = config.learning_rate, config.final_learning_rate
    if config.decay == "exponential":
        return first * (final / first) ** progress
    if config.decay == "cosine":
        return final + 0.5 * (first - final) * (1 + math.cos(math.pi * progress))
    return first


def update_average(average: Mapping[str, Tensor], model: nn.Module, step: int, decay: float) -> None:
    """Average the weights in place: a ← d a + (1 − d) θ with d = min(decay, (1 + step) / (10 + step)).

    The smaller d of the first steps removes the initial weights from the average.

    Args:
        average: averaged weights by name; constants keep their value.
        model: source of θ.
        step: steps taken so far.
        decay: 0 copies the weights.
    """
    d = min(decay, (1 + step) / (10 + step))
    names, values = zip(*model.named_parameters(), strict=True)
    with torch.no_grad():
        torch._foreach_lerp_([average[name] for name in names], [value.detach() for value in values], 1 - d)
