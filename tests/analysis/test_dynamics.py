"""Drift and temperature: exact lines are found exactly, and the errors are what they say."""

import numpy as np
import pytest

from so3k_md.analysis.dynamics import (
    canonical_density,
    linear_drift,
    statistical_inefficiency,
    summarise_temperature,
)


def correlated_noise(rng: np.random.Generator, n: int, rho: float) -> np.ndarray:
    """Unit normal noise with correlation rho^t."""
    noise = rng.normal(size=n)
    for k in range(1, n):
        noise[k] = rho * noise[k - 1] + np.sqrt(1 - rho**2) * noise[k]
    return noise


def test_an_exact_line() -> None:
    time = np.arange(0, 10, 0.25)
    drift = linear_drift(time, -1234.5 + 0.036 * time, n_atoms=9)
    assert drift.slope == pytest.approx(0.004, rel=1e-9)
    assert drift.error < 1e-10
    assert drift.rms < 1e-10


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_the_error_of_the_slope_is_its_spread(rho: float) -> None:
    """Slopes of many noisy lines scatter by the stated error, for white and for correlated noise."""
    rng = np.random.default_rng(4)
    time = np.arange(400) * 0.1
    drifts = [linear_drift(time, 0.02 * time + correlated_noise(rng, 400, rho), 1) for _ in range(200)]
    scores = [(drift.slope - 0.02) / drift.error for drift in drifts]
    assert np.std(scores) == pytest.approx(1, abs=0.25)
    assert abs(np.mean(scores)) < 0.25


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_inefficiency_of_an_autoregressive_series(rho: float) -> None:
    series = correlated_noise(np.random.default_rng(0), 40000, rho)
    assert statistical_inefficiency(series) == pytest.approx((1 + rho) / (1 - rho), rel=0.12)


def test_inefficiency_of_a_constant_is_one() -> None:
    assert statistical_inefficiency(np.full(50, 3.0)) == 1.0


def test_canonical_temperatures() -> None:
    rng = np.random.default_rng(1)
    boltzmann, target, degrees = 8.617333262e-5, 300.0, 24
    kinetic = 0.5 * boltzmann * target * rng.chisquare(degrees, size=20000)
    found = summarise_temperature(2 * kinetic / (degrees * boltzmann), 9, kinetic, target)
    assert found.degrees_of_freedom == degrees
    assert found.expected_std == pytest.approx(target * np.sqrt(2 / degrees))
    assert found.std == pytest.approx(found.expected_std, rel=0.03)
    assert abs(found.mean - target) < 4 * found.error
    assert found.error == pytest.approx(found.std / np.sqrt(20000), rel=0.2)


def test_degrees_of_freedom_without_kinetic_energy() -> None:
    found = summarise_temperature(np.array([290.0, 310.0]), 9)
    assert (found.degrees_of_freedom, found.target) == (24, None)
    assert found.expected_std == pytest.approx(300 * np.sqrt(2 / 24))


@pytest.mark.parametrize("degrees", [3, 24, 3000])
def test_the_canonical_density_has_its_moments(degrees: int) -> None:
    grid = np.linspace(1e-3, 3000, 300001)
    density = canonical_density(grid, 300.0, degrees)
    step = grid[1] - grid[0]
    assert density.sum() * step == pytest.approx(1, abs=2e-3)
    mean = (grid * density).sum() * step
    assert mean == pytest.approx(300, rel=2e-3)
    assert np.sqrt(((grid - mean) ** 2 * density).sum() * step) == pytest.approx(
        300 * np.sqrt(2 / degrees), rel=5e-3
    )
