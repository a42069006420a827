"""Tables of radial filters, which are functions of the distance alone and are not computed for each pair."""

import torch
from torch import Tensor, nn

FEWEST, MOST = 32, 4096  # intervals
CLOSEST = 0.3  # Å; no training data have shorter distances
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-11}  # relative to the largest value or derivative


class Tabulated(nn.Module):
    """Functions of the distance that a subclass defines, and their tables.

    The function is a method that a subclass overrides, because TorchScript takes no function as an argument.
    """

    def function(self, n: int, r: Tensor) -> Tensor:
        """The function number n of distances (points,), float64, Å, as (points, columns)."""
        raise NotImplementedError

    def table(
        self,
        n: int,
        end: float,
        tolerance: float,
        device: torch.device,
        fewest: int = FEWEST,
        most: int = MOST,
        closest: float = CLOSEST,
    ) -> Tensor:
        """Quintic polynomials on intervals of one width from 0 to `end`, (intervals, 6, columns), float64.

        Σ_k c_k t^k, t from 0 to 1 in an interval, has the value and the first two derivatives of the function
        at both ends. Coefficients of powers, unlike values at knots, lose no digits of the derivative to
        cancellation. The number of intervals is doubled until the largest errors at t = 1/4, of sixth order
        for the value and of fifth order for the derivative, are below the tolerance from `closest` on.

        Args:
            n: number of the function.
            end: Å.
            tolerance: relative to the largest value, and to the largest derivative.
            device: of the function.
            fewest: intervals to begin with.
            most: number of intervals at which the table is accepted whatever its errors.
            closest: Å.
        """
        had_grad = torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        intervals = fewest
        table = torch.empty([0, 6, 0], dtype=torch.float64, device=device)
        while table.size(0) == 0:
            width = end / intervals
            r = (torch.arange(intervals + 1, dtype=torch.float64, device=device) * width).requires_grad_()
            f = self.function(n, r)
            df = derivative(f, r)
            ddf = derivative(df, r)
            middle = (r.detach()[:-1] + 0.25 * width).requires_grad_()
            value = self.function(n, middle)
            prime = derivative(value, middle)
            with torch.no_grad():
                # the second derivative may diverge at distance zero, which no pair of atoms has
                found = quintics(f, df * width, torch.nan_to_num(ddf, 0.0, 0.0, 0.0) * (width * width))
                off_value, off_derivative = quarter_errors(found, value, prime * width, middle > closest)
                if intervals >= most or max(off_value, off_derivative) <= tolerance:
                    table = found
            intervals *= 2
        torch.set_grad_enabled(had_grad)
        return table


def derivative(values: Tensor, r: Tensor) -> Tensor:
    """∂values/∂r, (points, columns), where each row depends on one distance; differentiable again.

    Reverse mode is applied twice: Σ u · ∂values/∂r is linear in u. TorchScript has no forward mode, and in
    Python forward mode would make torch import its compiler for some operations. For the gradient of more
    than one number torch would import sympy, so that the values are summed here.

    Args:
        values: (points, columns).
        r: distances, (points,), from which the values were computed.
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
        m: derivatives by t.
        a: second derivatives by t.
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


def quarter_errors(table: Tensor, value: Tensor, prime: Tensor, counts: Tensor) -> tuple[float, float]:
    """Largest relative errors of value and prime by t at t = 1/4, over rows where `counts` (rows,)."""
    powers = torch.tensor([0.25**k for k in range(6)], dtype=torch.float64, device=table.device)
    rises = torch.tensor(
        [k * 0.25 ** max(k - 1, 0) for k in range(6)], dtype=torch.float64, device=table.device
    )
    off_value = ((powers @ table) - value)[counts].abs().max() / value[counts].abs().max()
    off_derivative = ((rises @ table) - prime)[counts].abs().max() / prime[counts].abs().max()
    return float(off_value), float(off_derivative)
