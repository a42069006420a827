"""Optimiser that moves matrices by their orthogonalised momentum (Muon), and everything else by AdamW.

Sources: Jordan et al., Muon (2024); choice of the polynomials: Amsel et al., The Polar Express
(arXiv:2505.16932).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

# p, q, r of each step X ← p X + q X Xᵀ X + r (X Xᵀ)² X. Each minimises the largest |1 − s| of the singular
# values s that the steps before leave of 0.01 to 1; the last one leaves 0.73 to 1.27.
STEPS = (
    (8.093369, -23.620432, 17.446152),
    (3.636586, -2.721927, 0.536546),
    (2.661300, -1.977155, 0.452616),
)
LEAST = 4  # rows and columns of a matrix that is moved in this way
SIZE = 0.2  # root mean square of a change over the learning rate, about that of AdamW


def orthogonal(x: Tensor) -> Tensor:
    """U Vᵀ of x = U S Vᵀ, approximately: singular values from 0.01 ‖x‖ on become 0.73 to 1.27.

    Args:
        x: matrices, (…, n, m) with n ≤ m.
    """
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-20)
    for p, q, r in STEPS:
        a = x @ x.mT
        x = p * x + (q * a + r * (a @ a)) @ x
    return x


def is_matrix(parameter: Tensor) -> bool:
    """Whether the last two axes of a weight are a map between features; tables and vectors are none."""
    return parameter.ndim > 1 and min(parameter.shape[-2:]) >= LEAST


class Muon(torch.optim.Optimizer):
    """W ← W − lr · 0.2 sqrt(max(n, m)) orthogonal(u), u = g + μ (m − g), m ← m + (1 − μ)(g − m).

    All matrices of one shape are orthogonalised at once; each head of a weight is a matrix.

    Args:
        parameters: matrices, (…, n, m).
        lr: learning rate.
        momentum: μ.
        weight_decay: decoupled, of all matrices.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move all matrices that have a derivative."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            for weight in weights:
                if "momentum" not in self.state[weight]:
                    self.state[weight]["momentum"] = torch.zeros_like(weight)
            momenta = [self.state[weight]["momentum"] for weight in weights]
            derivatives = [weight.grad for weight in weights]
            torch._foreach_lerp_(momenta, derivatives, 1 - group["momentum"])
            moves = torch._foreach_lerp(derivatives, momenta, group["momentum"])
            if group["weight_decay"]:
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            _move(weights, moves, group["lr"])


def _move(weights: Sequence[Tensor], moves: Sequence[Tensor], rate: float) -> None:
    """Subtract the orthogonalised moves from the weights, in place, in stacks of one shape."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for k, move in enumerate(moves):
        by_shape.setdefault(tuple(sorted(move.shape[-2:])), []).append(k)
    for (n, m), members in by_shape.items():
        turned = [moves[k].shape[-2] > moves[k].shape[-1] for k in members]
        flat = [
            (moves[k].mT if turn else moves[k]).reshape(-1, n, m)
            for k, turn in zip(members, turned, strict=True)
        ]
        found = orthogonal(torch.cat(flat)).split([len(part) for part in flat])
        for k, turn, part in zip(members, turned, found, strict=True):
            change = part.mT if turn else part
            weights[k].sub_(change.reshape(weights[k].shape), alpha=rate * SIZE * m**0.5)


class Together:
    """Several optimisers of different weights as one."""

    def __init__(self, *parts: torch.optim.Optimizer):
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self) -> None:
        """Forget all derivatives."""
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        """Move all weights."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of all parts."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for part, stored in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(stored)
