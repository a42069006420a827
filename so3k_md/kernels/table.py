"""Radial filters as tables: functions of the distance alone, read off instead of computed for each pair."""

import torch
from torch import Tensor, nn

FEWEST, MOST = 32, 4096  # intervals
CLOSEST = 0.3  # Å; where two atoms are nearer, nothing was ever trained
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-11}  # of the largest value, and of the largest slope


class Tabulated(nn.Module):
    """Functions of the distance that a subclass defines, and their tables.

    A method that a subclass overrides is the function, as TorchScript takes no function as an argument.
    """

    def function(self, n: int, r: Tensor) -> Tensor:
        """The function number n of distances (points,), float64, Å, as (points, columns)."""
        raise NotImplementedError

    def table(
        self,
        n: int,
        end: float,
        tolerance: float,
        fewest: int = FEWEST,
        most: int = MOST,
        closest: float = CLOSEST,
    ) -> Tensor:
        """Quintic polynomials between equal distances from 0 to `end`, (intervals, 6, columns), float64.

        Σ_k c_k t^k, t from 0 to 1 in an interval, with value, slope and curvature of the function at both
        ends. Coefficients of powers, unlike values at knots, do not lose the digits of the slope to
        cancellation. The number of intervals is doubled until the largest errors of value and slope at a
        quarter of them, both of sixth or fifth order, are below the tolerance from `closest` on.

        Args:
            n: number of the function.
            end: Å.
            tolerance: of the largest value, and of the largest slope.
            fewest: intervals to begin with.
            most: intervals with which the table is taken as it is.
            closest: Å.
        """
        had_grad = torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        intervals = fewest
        table = torch.empty([0, 6, 0], dtype=torch.float64)
        while table.size(0) == 0:
            width = end / intervals
            r = (torch.arange(intervals + 1, dtype=torch.float64) * width).requires_grad_()
            f = self.function(n, r)
            df = derivative(f, r)
            ddf = derivative(df, r)
            middle = (torch.arange(intervals, dtype=torch.float64) * width + 0.25 * width).requires_grad_()
            value = self.function(n, middle)
            slope = derivative(value, middle)
            with torch.no_grad():
                # a curvature may be without bounds where distances end, which no pair of atoms sees
                found = quintics(f, df * width, torch.nan_to_num(ddf, 0.0, 0.0, 0.0) * (width * width))
                off_value, off_slope = quarter_errors(found, value, slope * width, middle > closest)
                if intervals >= most or max(off_value, off_slope) <= tolerance:
                    table = found
            intervals *= 2
        torch.set_grad_enabled(had_grad)
        return table


def derivative(values: Tensor, r: Tensor) -> Tensor:
    """∂values/∂r of rows that depend on a number each, (points, columns), differentiable again.

    By reverse mode twice: Σ u · ∂values/∂r is linear in u. TorchScript has no forward mode, and without it
    torch would import its compiler for some operations; for a gradient of more than one number it would
    import sympy, so that the sums are taken here.

    Args:
        values: (points, columns).
        r: (points,), from which they were made.
    """
    u = torch.zeros_like(values).requires_grad_()
    along = torch.autograd.grad([(u * values).sum()], [r], create_graph=True)[0]
    assert along is not None
    found = torch.autograd.grad([along.sum()], [u], create_graph=True)[0]
    assert found is not None
    return found


def quintics(f: Tensor, m: Tensor, a: Tensor) -> Tensor:
    """c of Σ c_k t^k between rows, (rows − 1, 6, columns).

    Args:
        f: values at the knots, (rows, columns).
        m: slopes by t.
        a: curvatures by t.
    """
    f0, m0, a0, m1, a1 = f[:-1], m[:-1], a[:-1], m[1:], a[1:]
    rise = f[1:] - f0
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


def quarter_errors(table: Tensor, value: Tensor, slope: Tensor, counts: Tensor) -> tuple[float, float]:
    """Largest errors of value and slope by t at t = 1/4, of the largest of each, where `counts` (rows,)."""
    powers = torch.tensor([0.25**k for k in range(6)], dtype=torch.float64)
    rises = torch.tensor([k * 0.25 ** max(k - 1, 0) for k in range(6)], dtype=torch.float64)
    off_value = ((powers @ table) - value)[counts].abs().max() / value[counts].abs().max()
    off_slope = ((rises @ table) - slope)[counts].abs().max() / slope[counts].abs().max()
    return float(off_value), float(off_slope)
