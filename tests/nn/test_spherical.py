"""Spherical harmonics: orthonormal, equivariant, coupled by tensors of unit norm; norms without a kink."""

import math

import numpy as np
import pytest
import torch

from so3k_md.nn.spherical import (
    DegreeSum,
    SmoothNorm,
    SphericalHarmonics,
    SquaredNorm,
    coupling,
    spherical_harmonics,
)

DEGREES = [0, 1, 2, 3, 4]


def sphere() -> tuple[torch.Tensor, torch.Tensor]:
    """Directions and weights of a product quadrature, exact to degree 17."""
    z, weight_z = np.polynomial.legendre.leggauss(9)
    phi = 2 * math.pi * np.arange(18) / 18
    z, phi = np.meshgrid(z, phi, indexing="ij")
    rho = np.sqrt(1 - z**2)
    unit = np.stack([rho * np.cos(phi), rho * np.sin(phi), z], -1).reshape(-1, 3)
    return torch.tensor(unit), torch.tensor(np.repeat(weight_z, 18) * 2 * math.pi / 18)


def test_harmonics_are_orthonormal():
    unit, weight = sphere()
    ylm = SphericalHarmonics(DEGREES)(unit)
    overlap = ylm.T @ (weight[:, None] * ylm)
    assert torch.allclose(overlap, torch.eye(25, dtype=torch.float64), rtol=0, atol=1e-13)


def test_first_harmonics_have_the_published_order_and_sign():
    x, y, z = 0.36, 0.48, 0.8
    unit = torch.tensor([[x, y, z]], dtype=torch.float64)
    one = math.sqrt(3 / (4 * math.pi)) * torch.tensor([y, z, x], dtype=torch.float64)
    a, b = 0.5 * math.sqrt(15 / math.pi), 0.25 * math.sqrt(5 / math.pi)
    two = [a * x * y, a * y * z, b * (3 * z * z - 1), a * x * z, 0.5 * a * (x * x - y * y)]
    assert torch.allclose(spherical_harmonics(unit, 1)[0], one, rtol=0, atol=1e-15)
    assert torch.allclose(
        spherical_harmonics(unit, 2)[0], torch.tensor(two, dtype=torch.float64), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("degree", DEGREES)
def test_harmonics_obey_the_addition_theorem(degree):
    rng = np.random.default_rng(0)
    a, b = (torch.tensor(v / np.linalg.norm(v, axis=1, keepdims=True)) for v in rng.normal(size=(2, 10, 3)))
    products = (spherical_harmonics(a, degree) * spherical_harmonics(b, degree)).sum(1)
    legendre = np.polynomial.legendre.Legendre.basis(degree)((a * b).sum(1).numpy())
    assert np.allclose(products, (2 * degree + 1) / (4 * math.pi) * legendre, rtol=0, atol=1e-13)


@pytest.mark.parametrize("degrees", [(1, 2, 3), (1, 2, 2), (2, 3, 4), (1, 1, 0), (3, 4, 4)])
def test_couplings_are_equivariant_and_of_unit_norm(degrees):
    tensor = torch.from_numpy(coupling(*degrees))
    assert abs(float((tensor**2).sum()) - 1) < 1e-13
    rng = np.random.default_rng(1)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.linalg.det(rotation)
    u, v, w = (rng.normal(size=(1, 3)) for _ in range(3))
    scalars = []
    for turn in (np.eye(3), rotation):
        a, b, c = (
            spherical_harmonics(torch.tensor(r @ turn.T / np.linalg.norm(r)), l)[0]
            for r, l in zip((u, v, w), degrees, strict=True)
        )
        scalars.append(float(torch.einsum("abc,a,b,c->", tensor, a, b, c)))
    assert abs(scalars[0] - scalars[1]) < 1e-13
    assert abs(scalars[0]) > 1e-6


def test_coupling_to_degree_zero_is_the_scalar_product():
    assert np.allclose(np.abs(coupling(2, 2, 0)[:, :, 0]), np.eye(5) / math.sqrt(5), rtol=0, atol=1e-13)


def test_norms_of_degrees():
    chi = torch.randn(4, 15, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    slices = [chi[:, :3], chi[:, 3:8], chi[:, 8:]]
    plain = torch.stack([torch.linalg.vector_norm(part, dim=1) for part in slices], 1)
    degrees = torch.tensor([3.0, 5.0, 7.0], dtype=torch.float64)
    assert torch.allclose(SmoothNorm([1, 2, 3], 0.0)(chi), plain, rtol=0, atol=1e-13)
    assert torch.allclose(SmoothNorm([1, 2, 3], 0.1)(chi), (plain**2 + 0.01).sqrt() - 0.1, rtol=0, atol=1e-13)
    assert torch.allclose(SquaredNorm([1, 2, 3], 0.1)(chi), plain**2 / degrees.sqrt(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("eps", [0.0, 1e-2])
def test_norm_of_zero_is_zero_with_zero_gradient(eps):
    chi = torch.zeros(2, 15, dtype=torch.float64, requires_grad=True)
    norm = SmoothNorm([1, 2, 3], eps)(chi)
    gradient = torch.autograd.grad(norm.sum(), chi)[0]
    assert norm.abs().max() < 1e-14
    assert gradient.abs().max() == 0


def test_a_degree_is_repeated_over_its_orders():
    repeated = DegreeSum([0, 2]).repeat(torch.tensor([[2.0, 3.0]]))
    assert repeated.tolist() == [[2.0] + [3.0] * 5]
