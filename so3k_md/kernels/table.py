"""Radial filters as tables: functions of the distance alone, read off instead of computed for each pair."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

FEWEST, MOST = 128, 8192  # knots
CLOSEST = 0.3  # Å; where two atoms are nearer, nothing was ever trained
TOLERANCES = {torch.float32: 3e-7, torch.float64: 1e-10}  # of the largest value


def hermite_table(
    function: Callable[[Tensor], Tensor], end: float, dtype: torch.dtype
) -> tuple[Tensor, float]:
    """Values and slopes at equal distances, between which cubics are as exact as the dtype asks for.

    The number of knots is doubled until the largest error halfway between them, a fourth-order term, is
    below the tolerance from 0.3 Å on.

    Args:
        function: distances (points,) in float64, Å, to (points, columns).
        end: of the interval that begins at 0, Å.
        dtype: of the table.

    Returns:
        (knots, 2, columns), values and slopes times the spacing, and the spacing in Å.
    """
    knots = FEWEST
    while True:
        spacing = end / (knots - 1)
        r = torch.arange(knots, dtype=torch.float64) * spacing
        values, slopes = torch.func.jvp(function, (r,), (torch.ones_like(r),))
        slopes = slopes * spacing
        halfway = 0.5 * (values[1:] + values[:-1]) + 0.125 * (slopes[:-1] - slopes[1:])
        middle = r[:-1] + 0.5 * spacing
        error = (halfway - function(middle))[middle > CLOSEST].abs().max()
        if knots >= MOST or float(error) <= TOLERANCES[dtype] * float(values.abs().max()):
            return torch.stack([values, slopes], dim=1).to(dtype), spacing
        knots *= 2


def double(mlp: nn.Module, x: Tensor) -> Tensor:
    """An MLP evaluated in float64, whatever its parameters are in."""
    parameters = {name: parameter.double() for name, parameter in mlp.named_parameters()}
    return torch.func.functional_call(mlp, parameters, (x,))
