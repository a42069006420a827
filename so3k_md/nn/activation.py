"""The one non-linearity of the model."""

import torch
from torch import Tensor


def silu(x: Tensor) -> Tensor:
    """σ(x) = x / (1 + exp(−x)).

    Written out because it is several times faster than the library's kernel in float32 on a CPU. Below
    −40 the exponential is held, which keeps the gradient finite where the function itself is under 1e-15.
    """
    return x / (1.0 + torch.exp(-torch.clamp(x, min=-40.0)))
