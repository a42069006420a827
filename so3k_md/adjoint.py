"""Helper functions for manual backward passes, which differentiate a model in steps."""

from typing import Any

import torch
from torch import Tensor


def leaf(values: Tensor) -> Tensor:
    """The same values as a leaf at which a new autograd history starts."""
    with torch.no_grad():
        copy = values.clone()
    return copy.requires_grad_()


def gradients(outputs: list[Tensor], inputs: list[Tensor], seeds: list[Tensor]) -> list[Tensor]:
    """Σ seed · ∂output/∂input of each input; zeros for inputs without influence on the outputs.

    Args:
        outputs: tensors with or without an autograd history; harmonics of degree 0, which are constant, have
            none.
        inputs: leaves of this history.
        seeds: derivatives of the result by the outputs, one for each.
    """
    dependent: list[Tensor] = []
    # TorchScript distinguishes a list of tensors from a list of optional tensors
    weights: list[Tensor | None] = []
    for i, output in enumerate(outputs):
        if output.requires_grad:
            dependent.append(output)
            weights.append(seeds[i])
    found = torch.autograd.grad(dependent, inputs, weights, allow_unused=True)  # type: ignore[arg-type]
    filled: list[Tensor] = []
    for i, gradient in enumerate(found):
        filled.append(torch.zeros_like(inputs[i]) if gradient is None else gradient)
    return filled


def derivative_only(inputs: Tensor, derivatives: Tensor) -> Tensor:
    """Zeros whose derivative by the inputs is `derivatives`; adds a closed-form derivative to the history."""
    with torch.no_grad():
        values = inputs.clone()
    return (inputs - values) * derivatives


def added(a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
    """Elementwise sums of two lists of tensors."""
    total: list[Tensor] = []
    for i, tensor in enumerate(a):
        total.append(tensor + b[i])
    return total


class ClosedForm(torch.autograd.Function):
    """As `derivative_only`; the derivatives keep their history, so that they can be differentiated again.

    Autograd takes the derivatives as constants in the first pass. It would otherwise go back through their
    history only to find zeros.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, derivatives: Tensor) -> Tensor:
        """Zeros of the shape of the inputs."""
        ctx.save_for_backward(derivatives)
        return torch.zeros_like(inputs)

    @staticmethod
    def backward(ctx: Any, *seeds: Tensor) -> tuple[Tensor, None]:
        """seed · derivatives, with the history of both."""
        (derivatives,) = ctx.saved_tensors
        return seeds[0] * derivatives, None
