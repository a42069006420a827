"""Derivatives in steps: the small words in which a reverse pass is written."""

import torch
from torch import Tensor


def leaf(values: Tensor) -> Tensor:
    """The same values at the start of a graph of their own."""
    with torch.no_grad():
        copy = values.clone()
    return copy.requires_grad_()


def gradients(outputs: list[Tensor], inputs: list[Tensor], seeds: list[Tensor]) -> list[Tensor]:
    """Σ seed · ∂output/∂input of each input, zeros where it has no influence.

    Args:
        outputs: tensors with a graph, or without one: harmonics of degree 0 do not depend on anything.
        inputs: leaves of it.
        seeds: one for each output.
    """
    dependent: list[Tensor] = []
    # TorchScript tells a list of tensors from one of optional tensors
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


def slope_only(inputs: Tensor, slopes: Tensor) -> Tensor:
    """Zeros whose derivative by the inputs is `slopes`: how a slope in closed form enters a tape."""
    with torch.no_grad():
        values = inputs.clone()
    return (inputs - values) * slopes


def added(a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
    """Sums of two lists, one by one."""
    total: list[Tensor] = []
    for i, tensor in enumerate(a):
        total.append(tensor + b[i])
    return total
