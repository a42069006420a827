"""Radial bases and cutoffs against their formulas, and what makes forces smooth."""

import math

import pytest
import torch

from so3k_md.nn.activation import silu
from so3k_md.nn.radial import CUTOFFS, RADIAL_BASES

R = torch.linspace(0.3, 4.9, 40, dtype=torch.float64)


def test_physnet_basis_is_its_formula():
    basis = RADIAL_BASES["physnet"](6, 5.0)(R)
    beta = (2 / 6 * (1 - math.exp(-5.0))) ** -2
    for k in range(6):
        centre = math.exp(-5.0) + k * (1 - math.exp(-5.0)) / 5
        expected = [math.exp(-beta * (math.exp(-float(r)) - centre) ** 2) for r in R]
        assert torch.allclose(basis[:, k], torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_gaussian_basis_is_its_formula():
    basis = RADIAL_BASES["gaussian"](5, 4.0)(R)
    for k in range(5):
        expected = [math.exp(-10.0 * (float(r) - k) ** 2) for r in R]
        assert torch.allclose(
            basis[:, k], torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-300
        )


def test_bernstein_basis_is_its_formula_and_sums_to_one():
    basis = RADIAL_BASES["bernstein"](32, 4.5)(R)
    t = torch.exp(-0.944863062918464 * R)
    direct = torch.stack([math.comb(31, k) * t**k * (1 - t) ** (31 - k) for k in range(32)], dim=1)
    assert torch.allclose(basis, direct, rtol=1e-10, atol=1e-14)
    assert torch.allclose(basis.sum(1), torch.ones_like(R), rtol=0, atol=1e-12)


def test_physnet_cutoff_is_its_polynomial():
    u = R / 5.0
    expected = 1 - 10 * u**3 + 15 * u**4 - 6 * u**5
    assert torch.allclose(CUTOFFS["physnet"](5.0, 6)(R), expected, rtol=0, atol=1e-14)


def test_polynomial_cutoff_of_order_six():
    u = R / 5.0
    expected = 1 - 28 * u**6 + 48 * u**7 - 21 * u**8
    assert torch.allclose(CUTOFFS["polynomial"](5.0, 6)(R), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", CUTOFFS)
def test_cutoffs_fall_from_one_to_zero_without_a_kink(name):
    cutoff = CUTOFFS[name](5.0, 6)
    r = torch.tensor([0.0, 4.9999, 5.0, 6.0], dtype=torch.float64, requires_grad=True)
    value = cutoff(r)
    derivative = torch.autograd.grad(value.sum(), r)[0]
    assert value[0] == 1.0
    assert 0 <= value[1] < 1e-6
    assert value[2] == 0.0
    assert value[3] == 0.0
    assert derivative[1].abs() < 1e-3
    assert derivative[2].abs() < 1e-12


def test_silu_and_its_gradient_are_exact_and_finite():
    for dtype in (torch.float32, torch.float64):
        x = torch.linspace(-200, 200, 801, dtype=dtype, requires_grad=True)
        y, expected = silu(x), torch.nn.functional.silu(x)
        derivative, expected_derivative = (torch.autograd.grad(f.sum(), x)[0] for f in (y, expected))
        tolerance = 2e-6 if dtype == torch.float32 else 1e-13
        assert torch.allclose(y, expected, rtol=tolerance, atol=tolerance)
        assert torch.allclose(derivative, expected_derivative, rtol=tolerance, atol=tolerance)
