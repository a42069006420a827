"""Fine-tuning by changes of low rank: W = W_0 + A B for every matrix (LoRA).

Source: Hu et al., ICLR 2022 (arXiv:2106.09685).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from so3k_md.train.config import TrainConfig
from so3k_md.train.optimizer import adamw


class LowRank:
    """AdamW of A (…, n, r) and B (…, r, m) of each matrix W (…, n, m) with n, m > r; the rest is frozen.

    The model holds W, so that its forward and backward pass do not change: ∂L/∂A = ∂L/∂W Bᵀ and
    ∂L/∂B = Aᵀ ∂L/∂W. A begins with zeros, B at random with variance 1/m.

    Args:
        parameters: of the model, by name; those that are not changed are frozen, in place.
        rank: r.
        config: of the optimisation.
        generator: of B.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], rank: int, config: TrainConfig, generator: Generator
    ):
        self.matrices = [
            p for p in parameters.values() if p.requires_grad and p.ndim > 1 and min(p.shape[-2:]) > rank
        ]
        changed = {id(matrix) for matrix in self.matrices}
        for parameter in parameters.values():
            parameter.requires_grad_(id(parameter) in changed)
        self.initial = [matrix.detach().clone() for matrix in self.matrices]
        self.left, self.right = [], []
        for matrix in self.matrices:
            *heads, n, m = matrix.shape
            right = torch.randn([*heads, rank, m], generator=generator) / m**0.5
            self.left.append(matrix.new_zeros([*heads, n, rank]).requires_grad_())
            self.right.append(right.to(matrix).requires_grad_())
        self.inner = adamw([*self.left, *self.right], config)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of A and B, with their learning rate."""
        return self.inner.param_groups

    def zero_grad(self) -> None:
        """Forget the derivatives by all W, A and B."""
        self.inner.zero_grad()
        for matrix in self.matrices:
            matrix.grad = None

    def step(self) -> None:
        """Change A and B by the derivatives by W, and W with them."""
        for matrix, left, right in zip(self.matrices, self.left, self.right, strict=True):
            if matrix.grad is not None:
                with torch.no_grad():
                    left.grad = matrix.grad @ right.mT
                    right.grad = left.mT @ matrix.grad
        self.inner.step()
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        """State of the optimizer, W_0, A and B."""
        return {
            "inner": self.inner.state_dict(),
            "initial": self.initial,
            "left": [left.detach() for left in self.left],
            "right": [right.detach() for right in self.right],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.inner.load_state_dict(state["inner"])
        with torch.no_grad():
            for own, stored in (
                *zip(self.initial, state["initial"], strict=True),
                *zip(self.left, state["left"], strict=True),
                *zip(self.right, state["right"], strict=True),
            ):
                own.copy_(stored)
        self._apply()

    def _apply(self) -> None:
        with torch.no_grad():
            for matrix, initial, left, right in zip(
                self.matrices, self.initial, self.left, self.right, strict=True
            ):
                matrix.copy_(initial + left @ right)
