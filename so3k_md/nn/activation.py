"""The activation function of all layers."""

from torch import Tensor
from torch.nn import functional


def silu(x: Tensor) -> Tensor:
    """σ(x) = x / (1 + exp(−x))."""
    return functional.silu(x)
