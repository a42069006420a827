"""Functions of the distance: cutoffs and radial bases.

The buffers are float64 and cast at use, so that a model changes precision with its parameters alone.
"""

import math

import torch
from torch import Tensor, nn


def cosine_cutoff(r: Tensor, cutoff: float) -> Tensor:
    """φ(r) = (cos(π r / c) + 1) / 2 inside c and zero outside.

    Args:
        r: distances, (pairs,), Å.
        cutoff: c, Å.
    """
    return torch.where(r < cutoff, 0.5 * torch.cos(r * (math.pi / cutoff)) + 0.5, torch.zeros_like(r))


def polynomial_cutoff(r: Tensor, cutoff: float, p: int) -> Tensor:
    """φ(u) = 1 − (p+1)(p+2)/2 u^p + p(p+2) u^(p+1) − p(p+1)/2 u^(p+2), u = r/c, zero outside c.

    p = 3 is PhysNet's 1 − 10u³ + 15u⁴ − 6u⁵. The value and its first two derivatives vanish at c.

    Args:
        r: distances, (pairs,), Å.
        cutoff: c, Å.
        p: order, at least 2.
    """
    u = r / cutoff
    bracket = 0.5 * (p + 1) * (p + 2) - p * (p + 2) * u + 0.5 * p * (p + 1) * u * u
    return torch.where(u < 1.0, 1.0 - u.pow(p) * bracket, torch.zeros_like(r))


class CosineCutoff(nn.Module):
    """Module of `cosine_cutoff`."""

    def __init__(self, cutoff: float, p: int):
        super().__init__()
        self.cutoff = cutoff

    def forward(self, r: Tensor) -> Tensor:
        """φ(r), (pairs,)."""
        return cosine_cutoff(r, self.cutoff)


class PolynomialCutoff(nn.Module):
    """Module of `polynomial_cutoff`."""

    def __init__(self, cutoff: float, p: int):
        super().__init__()
        self.cutoff = cutoff
        self.p = p

    def forward(self, r: Tensor) -> Tensor:
        """φ(r), (pairs,)."""
        return polynomial_cutoff(r, self.cutoff, self.p)


class PhysNetCutoff(PolynomialCutoff):
    """1 − 10u³ + 15u⁴ − 6u⁵ (Unke & Meuwly, JCTC 2019)."""

    def __init__(self, cutoff: float, p: int):
        super().__init__(cutoff, 3)


CUTOFFS: dict[str, type[nn.Module]] = {
    "cosine": CosineCutoff,
    "physnet": PhysNetCutoff,
    "polynomial": PolynomialCutoff,
}


class PhysNetBasis(nn.Module):
    """e_k(r) = exp(−β (exp(−r) − μ_k)²), μ_k = linspace(exp(−c), 1, K), β = [2 (1 − exp(−c)) / K]⁻².

    Source: Unke & Meuwly, JCTC 2019; r in Å.
    """

    centres: Tensor

    def __init__(self, n_rbf: int, cutoff: float):
        super().__init__()
        nearest = math.exp(-cutoff)
        self.register_buffer("centres", torch.linspace(nearest, 1.0, n_rbf, dtype=torch.float64))
        self.beta = (2.0 / n_rbf * (1.0 - nearest)) ** -2

    def forward(self, r: Tensor) -> Tensor:
        """e_k(r), (pairs, n_rbf)."""
        distance = torch.exp(-r)[:, None] - self.centres.to(r.dtype)
        return torch.exp(-self.beta * distance * distance)


class GaussianBasis(nn.Module):
    """e_k(r) = exp(−γ (r − μ_k)²), γ = 10 Å⁻², μ_k = linspace(0, c, K)."""

    centres: Tensor

    def __init__(self, n_rbf: int, cutoff: float):
        super().__init__()
        self.register_buffer("centres", torch.linspace(0.0, cutoff, n_rbf, dtype=torch.float64))
        self.gamma = 10.0

    def forward(self, r: Tensor) -> Tensor:
        """e_k(r), (pairs, n_rbf)."""
        distance = r[:, None] - self.centres.to(r.dtype)
        return torch.exp(-self.gamma * distance * distance)


class BernsteinBasis(nn.Module):
    """e_k(r) = C(K−1, k) t^k (1 − t)^(K−1−k), t = exp(−γ r), γ = 1/(2 a_0) = 0.944863 Å⁻¹.

    Evaluated as an exponential of logarithms, as the powers alone underflow. Source: SpookyNet (2021), SO3LR.
    """

    ln_binomial: Tensor
    power: Tensor

    def __init__(self, n_rbf: int, cutoff: float):
        super().__init__()
        n = n_rbf - 1
        ln_binomial = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n_rbf)]
        self.register_buffer("ln_binomial", torch.tensor(ln_binomial, dtype=torch.float64))
        self.register_buffer("power", torch.arange(n_rbf, dtype=torch.float64))
        self.gamma = 0.944863062918464
        self.n = n

    def forward(self, r: Tensor) -> Tensor:
        """e_k(r), (pairs, n_rbf)."""
        power = self.power.to(r.dtype)
        ln_t = (-self.gamma * r)[:, None]
        # expm1 keeps 1 − t exact for near atoms; the clamp only matters below 1e-6 Å
        ln_rest = torch.log(torch.clamp(-torch.expm1(ln_t), min=1e-6))
        return torch.exp(self.ln_binomial.to(r.dtype) + power * ln_t + (self.n - power) * ln_rest)


RADIAL_BASES: dict[str, type[nn.Module]] = {
    "physnet": PhysNetBasis,
    "gaussian": GaussianBasis,
    "bernstein": BernsteinBasis,
}
