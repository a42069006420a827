"""Real spherical harmonics, their invariants, and the coupling of two of them to a third."""

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MAX_DEGREE = 4


def spherical_harmonics(unit: Tensor, degree: int) -> Tensor:
    """Y_lm of a unit vector, real and orthonormal on the sphere, m = −l … l, no Condon-Shortley phase.

    Args:
        unit: directions, (pairs, 3).
        degree: l, 0 to 4.

    Returns:
        (pairs, 2l + 1).
    """
    x, y, z = unit[:, 0], unit[:, 1], unit[:, 2]
    if degree == 0:
        return torch.full_like(unit[:, :1], math.sqrt(1 / (4 * math.pi)))
    if degree == 1:
        return math.sqrt(3 / (4 * math.pi)) * torch.stack([y, z, x], dim=1)
    xx, yy, zz = x * x, y * y, z * z
    if degree == 2:
        a = math.sqrt(15 / (4 * math.pi))
        b = math.sqrt(5 / (16 * math.pi))
        return torch.stack([a * x * y, a * y * z, b * (3 * zz - 1), a * x * z, 0.5 * a * (xx - yy)], dim=1)
    if degree == 3:
        a = math.sqrt(35 / (32 * math.pi))
        b = math.sqrt(105 / (4 * math.pi))
        c = math.sqrt(21 / (32 * math.pi))
        d = math.sqrt(7 / (16 * math.pi))
        return torch.stack(
            [
                a * y * (3 * xx - yy),
                b * x * y * z,
                c * y * (5 * zz - 1),
                d * z * (5 * zz - 3),
                c * x * (5 * zz - 1),
                0.5 * b * z * (xx - yy),
                a * x * (xx - 3 * yy),
            ],
            dim=1,
        )
    a = math.sqrt(315 / (16 * math.pi))
    b = math.sqrt(315 / (32 * math.pi))
    c = math.sqrt(45 / (16 * math.pi))
    d = math.sqrt(45 / (32 * math.pi))
    e = math.sqrt(9 / (256 * math.pi))
    return torch.stack(
        [
            a * x * y * (xx - yy),
            b * y * z * (3 * xx - yy),
            c * x * y * (7 * zz - 1),
            d * y * z * (7 * zz - 3),
            e * (35 * zz * zz - 30 * zz + 3),
            d * x * z * (7 * zz - 3),
            0.5 * c * (xx - yy) * (7 * zz - 1),
            b * x * z * (xx - 3 * yy),
            0.25 * a * (xx * (xx - 3 * yy) - yy * (3 * xx - yy)),
        ],
        dim=1,
    )


class NextDegree(nn.Module):
    """Computes Y_(l+1) as the part of highest degree of the products of Y_l and the unit vector."""

    weight: Tensor

    def __init__(self, degree: int):
        super().__init__()
        # a fit to more directions than unknowns; exact, because the products span the harmonics of degree + 1
        points = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        unit = points / torch.linalg.vector_norm(points, dim=1, keepdim=True)
        products = (spherical_harmonics(unit, degree)[:, :, None] * unit[:, None, :]).flatten(1)
        weight = torch.linalg.lstsq(products, spherical_harmonics(unit, degree + 1), driver="gelsd").solution
        self.register_buffer("weight", weight)

    def forward(self, ylm: Tensor, unit: Tensor) -> Tensor:
        """(2l + 1, pairs) and (3, pairs) to (2l + 3, pairs)."""
        return self.weight.to(unit.dtype).t() @ (ylm[:, None] * unit[None]).flatten(0, 1)


class SphericalHarmonics(nn.Module):
    """Harmonics of several degrees, concatenated; each degree is computed from the one below.

    This takes few large operations instead of many small ones, and training differentiates each one twice.
    Inside, a row is one component of all pairs, because rows of three or five numbers are slow to multiply.
    """

    def __init__(self, degrees: list[int]):
        super().__init__()
        self.degrees = degrees
        self.steps: Any = nn.ModuleList([NextDegree(degree) for degree in range(max(degrees))])

    def forward(self, unit: Tensor) -> Tensor:
        """Y of unit vectors (pairs, 3) as (pairs, chi_width)."""
        unit = unit.t().contiguous()
        ylm = torch.full_like(unit[:1], math.sqrt(1 / (4 * math.pi)))
        found = [ylm]
        for step in self.steps:
            ylm = step(ylm, unit)
            found.append(ylm)
        return torch.cat([found[degree] for degree in self.degrees]).t().contiguous()


class DegreeSum(nn.Module):
    """Sums over the orders m of each degree l, or repeats a value of each degree for all its orders."""

    sums: Tensor
    degree_of_order: Tensor

    def __init__(self, degrees: list[int]):
        super().__init__()
        degree_of_order = torch.tensor([k for k, l in enumerate(degrees) for _ in range(2 * l + 1)])
        self.register_buffer("degree_of_order", degree_of_order)
        self.register_buffer("sums", torch.eye(len(degrees), dtype=torch.float64)[degree_of_order])

    def forward(self, chi: Tensor) -> Tensor:
        """(rows, chi_width) to (rows, degrees)."""
        return (self.sums.to(chi.dtype).t() @ chi.t()).t()

    def repeat(self, per_degree: Tensor) -> Tensor:
        """(rows, degrees) to (rows, chi_width)."""
        return per_degree.index_select(1, self.degree_of_order)


class SmoothNorm(nn.Module):
    """‖χ^(l)‖ smoothed to sqrt(Σ_m χ_lm² + ε²) − ε, which has no kink at zero (ε = 0 is the plain norm)."""

    def __init__(self, degrees: list[int], eps: float):
        super().__init__()
        self.degree_sum = DegreeSum(degrees)
        self.eps = eps

    def forward(self, chi: Tensor) -> Tensor:
        """(rows, chi_width) to (rows, degrees)."""
        return self.of_squares(self.degree_sum(chi * chi))

    def of_squares(self, square: Tensor) -> Tensor:
        """The same from Σ_m χ_lm², (rows, degrees)."""
        # the tiny constant makes value and gradient zero, not NaN, where eps and the norm both vanish
        return torch.sqrt(square + (self.eps * self.eps + 1e-30)) - self.eps


class SquaredNorm(nn.Module):
    """‖χ^(l)‖² / sqrt(2l + 1), the contraction to l = 0 of the 2024 model."""

    weight: Tensor

    def __init__(self, degrees: list[int], eps: float):
        super().__init__()
        self.degree_sum = DegreeSum(degrees)
        weight = torch.tensor([2.0 * l + 1.0 for l in degrees], dtype=torch.float64).rsqrt()
        self.register_buffer("weight", weight)

    def forward(self, chi: Tensor) -> Tensor:
        """(rows, chi_width) to (rows, degrees)."""
        return self.of_squares(self.degree_sum(chi * chi))

    def of_squares(self, square: Tensor) -> Tensor:
        """The same from Σ_m χ_lm², (rows, degrees)."""
        return square * self.weight.to(square.dtype)


CHI_INVARIANTS: dict[str, type[nn.Module]] = {"norm": SmoothNorm, "squared": SquaredNorm}


@cache
def coupling(l1: int, l2: int, l3: int) -> np.ndarray:
    """The tensor C of unit Frobenius norm for which Σ C_abc u_a v_b is equivariant of degree l3.

    It spans the one-dimensional space of tensors that no rotation changes. Its first entry above rounding
    noise is positive, which fixes the sign.

    Args:
        l1, l2, l3: degrees, 0 to 4, |l1 − l2| ≤ l3 ≤ l1 + l2.

    Returns:
        (2 l1 + 1, 2 l2 + 1, 2 l3 + 1), float64.
    """
    rng = np.random.default_rng(0)
    size = (2 * l1 + 1) * (2 * l2 + 1) * (2 * l3 + 1)
    conditions = []
    for _ in range(2):
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        rotation *= np.linalg.det(rotation)
        d1, d2, d3 = (_wigner(degree, rotation) for degree in (l1, l2, l3))
        conditions.append(np.einsum("ai,bj,ck->abcijk", d1, d2, d3).reshape(size, size) - np.eye(size))
    tensor = np.linalg.svd(np.concatenate(conditions))[2][-1]
    tensor *= np.sign(tensor[np.abs(tensor) > 1e-6][0])
    tensor[np.abs(tensor) < 1e-12] = 0.0
    return tensor.reshape(2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1)


def _wigner(degree: int, rotation: np.ndarray) -> np.ndarray:
    """D with Y(R u) = D Y(u), solved from random directions."""
    points = np.random.default_rng(1).normal(size=(64, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    before = spherical_harmonics(torch.from_numpy(points), degree).numpy()
    after = spherical_harmonics(torch.from_numpy(points @ rotation.T), degree).numpy()
    return np.linalg.lstsq(before, after, rcond=None)[0].T
