"""The optimiser, its learning rate, and the running average of the weights."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from so3k_md.nn.linear import HeadLinear, Linear
from so3k_md.train.config import TrainConfig
from so3k_md.train.muon import Muon, Together, is_matrix


class Optimizer(Protocol):
    """What a training needs of an optimiser."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of weights, each with its learning rate `lr`."""

    def zero_grad(self) -> None:
        """Forget all derivatives."""

    def step(self) -> None:
        """Move all weights."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed training needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


def optimizer_of(model: nn.Module, config: TrainConfig) -> Optimizer:
    """The optimiser of the weights that can be trained: AdamW, or Muon for maps between features."""
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if config.optimizer == "adamw":
        return adamw(trained.values(), config)
    maps = [module.weight for module in model.modules() if isinstance(module, Linear | HeadLinear)]
    moved = {id(weight) for weight in maps if weight.requires_grad and is_matrix(weight)}
    chosen = [weight for weight in trained.values() if id(weight) in moved]
    others = [weight for weight in trained.values() if id(weight) not in moved]
    parts: list[torch.optim.Optimizer] = []
    if chosen:
        parts.append(Muon(chosen, config.learning_rate, weight_decay=config.weight_decay))
    if others:
        parts.append(adamw(others, config))
    return Together(*parts)


def adamw(weights: Iterable[Tensor], config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW without weight decay for biases, norms and scales."""
    trained = list(weights)
    matrices = [parameter for parameter in trained if parameter.ndim > 1]
    vectors = [parameter for parameter in trained if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, amsgrad=config.amsgrad, fused=True)


def learning_rate(step: int, n_steps: int, config: TrainConfig, losses: Sequence[float] = ()) -> float:
    """Linear warm-up, then exponential, cosine or stepwise decay from the first to the final rate.

    Args:
        step: steps taken so far.
        n_steps: steps of the whole training.
        config: the rates.
        losses: of all validations so far, for the decay `plateau`.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, n_steps - config.warmup_steps)
    first, final = config.learning_rate, config.final_learning_rate
    if config.decay == "exponential":
        return first * (final / first) ** progress
    if config.decay == "cosine":
        return final + 0.5 * (first - final) * (1 + math.cos(math.pi * progress))
    if config.decay == "plateau":
        return max(final, first * 0.5 ** plateaus(losses, config.plateau_patience))
    return first


def plateaus(losses: Sequence[float], patience: int) -> int:
    """How often `patience` losses in a row were no lower than all before them."""
    best, waiting, found = math.inf, 0, 0
    for loss in losses:
        waiting = 0 if loss < best else waiting + 1
        best = min(best, loss)
        if waiting == patience:
            found, waiting = found + 1, 0
    return found


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
