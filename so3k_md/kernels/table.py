"""Radial filters as tables: functions of the distance alone, read off instead of computed for each pair."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

FEWEST, MOST = 32, 4096  # intervals
CLOSEST = 0.3  # Å; where two atoms are nearer, nothing was ever trained
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-11}  # of the largest value, and of the largest slope


def quintic_table(
    function: Callable[[Tensor], Tensor], end: float, dtype: torch.dtype
) -> tuple[Tensor, float]:
    """Polynomials of fifth degree between equal distances, as exact as the dtype asks for.

    Σ_k c_k t^k, t from 0 to 1 in an interval, with value, slope and curvature of the function at both ends.
    Coefficients of powers, unlike values at knots, do not lose the digits of the slope to cancellation. The
    number of intervals is doubled until the largest errors of value and slope at a quarter of them, both of
    sixth or fifth order, are below the tolerance from 0.3 Å on.

    Args:
        function: distances (points,) in float64, Å, to (points, columns).
        end: of the interval that begins at 0, Å.
        dtype: of the table.

    Returns:
        c, (intervals, 6, columns), and the width of an interval in Å.
    """

    intervals = FEWEST
    while True:
        width = end / intervals
        r = (torch.arange(intervals + 1, dtype=torch.float64) * width).requires_grad_()
        with torch.enable_grad():
            f = function(r)
            df = derivative(f, r)
            ddf = derivative(df, r)
        f, df, ddf = f.detach(), df.detach(), ddf.detach()
        # a curvature may be without bounds where distances end, which no pair of atoms sees
        df, ddf = df * width, ddf.nan_to_num(0.0, 0.0, 0.0) * width**2
        table = quintics((f[:-1], df[:-1], ddf[:-1]), (f[1:], df[1:], ddf[1:]))
        middle = (r.detach()[:-1] + 0.25 * width).requires_grad_()
        with torch.enable_grad():
            value = function(middle)
            slope = derivative(value, middle)
        powers = torch.tensor([0.25**k for k in range(6)], dtype=torch.float64)
        rises = torch.tensor([0.0] + [k * 0.25 ** (k - 1) for k in range(1, 6)], dtype=torch.float64) / width
        trained = middle > CLOSEST
        errors = [
            float(((weights @ table - wanted)[trained]).abs().max() / wanted[trained].abs().max())
            for weights, wanted in ((powers, value.detach()), (rises, slope.detach()))
        ]
        if intervals >= MOST or max(errors) <= TOLERANCES[dtype]:
            return table.to(dtype), width
        intervals *= 2


def derivative(values: Tensor, r: Tensor) -> Tensor:
    """∂values/∂r of rows that depend on a number each, (points, columns), differentiable again.

    By reverse mode twice: Σ u · ∂values/∂r is linear in u. Forward mode would do it in one step, but where an
    operation has no rule for it torch imports its compiler, a hundred megabytes; and for a gradient of more
    than one number it imports sympy, fifty, so that the sum is taken here.

    Args:
        values: (points, columns).
        r: (points,), from which they were made.
    """
    u = torch.zeros_like(values, requires_grad=True)
    (along,) = torch.autograd.grad((u * values).sum(), r, create_graph=True)
    (found,) = torch.autograd.grad(along.sum(), u, create_graph=True)
    return found


def quintics(start: tuple[Tensor, Tensor, Tensor], end: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """c of Σ c_k t^k, (rows, 6, columns), from value, slope and curvature (rows, columns) at both ends."""
    (f0, m0, a0), (f1, m1, a1) = start, end
    rise = f1 - f0
    return torch.stack(
        [
            f0,
            m0,
            0.5 * a0,
            10.0 * rise - 6.0 * m0 - 4.0 * m1 - 1.5 * a0 + 0.5 * a1,
            -15.0 * rise + 8.0 * m0 + 7.0 * m1 + 1.5 * a0 - a1,
            6.0 * rise - 3.0 * m0 - 3.0 * m1 - 0.5 * a0 + 0.5 * a1,
        ],
        dim=1,
    )


def double(mlp: nn.Module, x: Tensor) -> Tensor:
    """An MLP evaluated in float64, whatever its parameters are in."""
    parameters = {name: parameter.double() for name, parameter in mlp.named_parameters()}
    return torch.func.functional_call(mlp, parameters, (x,))
