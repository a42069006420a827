"""The switching function between two distances."""

import torch
from torch import Tensor


def switch(r: Tensor, on: float, off: float) -> Tensor:
    """w(r) = B(1 − s) / (B(1 − s) + B(s)), s = (r − on) / (off − on), B(t) = exp(−1/t) for t > 0, else 0.

    Falls from 1 at `on` to 0 at `off`, where all derivatives vanish.

    Args:
        r: distances, (pairs,), Å.
        on: Å.
        off: Å.
    """
    s = _fraction(r, on, off)
    return torch.sigmoid(torch.reciprocal(s) - torch.reciprocal(1.0 - s))


def switch_with_derivative(r: Tensor, on: float, off: float) -> tuple[Tensor, Tensor]:
    """w(r) and w′(r) = −w (1 − w) (1/s² + 1/(1 − s)²) / (off − on).

    Args:
        r: distances, (pairs,), Å.
        on: Å.
        off: Å.
    """
    s = _fraction(r, on, off)
    up, down = torch.reciprocal(s), torch.reciprocal(1.0 - s)
    w = torch.sigmoid(up - down)
    return w, (w * (w - 1.0)) * (up * up + down * down) * (1.0 / (off - on))


def _fraction(r: Tensor, on: float, off: float) -> Tensor:
    """s, clamped away from 0 and 1, where w′ is 0 · ∞; there w is within exp(−63) of 1 and 0."""
    width = 1.0 / (off - on)
    return (r * width - on * width).clamp(min=0.015625, max=0.984375)
