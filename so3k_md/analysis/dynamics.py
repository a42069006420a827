"""Analyses time series: drift and temperature, each with its statistical error."""

import math
from typing import NamedTuple

import numpy as np

from so3k_md.analysis.geometry import Array
from so3k_md.units import BOLTZMANN_EV_K

FEWEST_ROWS = 20  # shorter series have no equilibration
STARTS = 100  # number of starts that are tried


class Drift(NamedTuple):
    """A straight line through the conserved energy per atom."""

    slope: float  # eV/atom/ps
    error: float  # standard error of the slope, eV/atom/ps
    rms: float  # fluctuation about the line, eV/atom
    inefficiency: float  # rows per independent row


class TemperatureSummary(NamedTuple):
    """Mean and spread of the temperature, and the spread that a canonical ensemble has."""

    mean: float  # K
    error: float  # standard error of the mean, K
    std: float  # K
    expected_std: float  # K
    target: float | None  # K
    degrees_of_freedom: int
    degrees_from: str


def statistical_inefficiency(values: Array) -> float:
    """Rows per independent row, g = 1 + 2 sum_t (1 - t/n) rho(t), summed until rho first falls to zero.

    See doi:10.1021/ct0502864, eq. 28.

    Args:
        values: (rows,), any unit.
    """
    n = len(values)
    centred = values - values.mean()
    spectrum = np.abs(np.fft.rfft(centred, 2 * n)) ** 2
    covariance = np.fft.irfft(spectrum)[:n]
    if n < 3 or covariance[0] <= 0:
        return 1.0
    rho = covariance / covariance[0] * n / np.arange(n, 0, -1)
    fallen = np.flatnonzero(rho[1:] <= 0)
    end = int(fallen[0]) + 1 if len(fallen) else n
    t = np.arange(1, end)
    return max(1.0, 1.0 + 2.0 * float(np.sum((1 - t / n) * rho[1:end])))


def equilibration(values: Array) -> int:
    """The row from which a series is stationary: the one that leaves the most independent rows.

    n_eff(t) = (n - t) / g(t), g the statistical inefficiency of the rows from t on:
    J. D. Chodera, J. Chem. Theory Comput. 12, 1799 (2016), doi:10.1021/acs.jctc.5b00784.

    Args:
        values: (rows,), any unit.
    """
    n = len(values)
    if n < FEWEST_ROWS:
        return 0
    starts = np.unique(np.linspace(0, n - FEWEST_ROWS // 2, STARTS).astype(np.int64))
    effective = [(n - start) / statistical_inefficiency(values[start:]) for start in starts]
    return int(starts[int(np.argmax(effective))])


def linear_drift(time: Array, energy: Array, n_atoms: int) -> Drift:
    """Least-squares slope of the energy per atom, its error widened by the correlation of the residuals.

    error^2 = g sum r^2 / (n - 2) / sum (t - <t>)^2, r the residuals and g their statistical inefficiency.

    Args:
        time: (rows,), ps.
        energy: (rows,), eV.
        n_atoms: number of atoms.
    """
    x, y = time - time.mean(), energy / n_atoms
    slope = float(x @ y / (x @ x))
    residuals = y - y.mean() - slope * x
    inefficiency = statistical_inefficiency(residuals)
    variance = float(residuals @ residuals) / max(len(x) - 2, 1)
    error = math.sqrt(inefficiency * variance / float(x @ x))
    return Drift(slope, error, math.sqrt(float(np.mean(residuals**2))), inefficiency)


def canonical_density(temperature: Array, target: float, degrees: int) -> Array:
    """The canonical distribution of the instantaneous temperature, a gamma distribution, 1/K.

    p(T) = exp(-f T / 2 T0) T^(f/2 - 1) (f / 2 T0)^(f/2) / Gamma(f/2), of mean T0 and variance 2 T0^2 / f.

    Args:
        temperature: T > 0, any shape, K.
        target: T0, K.
        degrees: f.
    """
    shape, scale = degrees / 2, 2 * target / degrees
    logarithm = (shape - 1) * np.log(temperature / scale) - temperature / scale
    return np.exp(logarithm - math.lgamma(shape)) / scale


def summarise_temperature(
    temperature: Array, n_atoms: int, kinetic: Array | None = None, target: float | None = None
) -> TemperatureSummary:
    """Mean, spread, and the canonical spread T sqrt(2 / f) for f degrees of freedom.

    f = 2 <K> / (k_B <T>) if the log has the kinetic energy, otherwise 3 n - 3.

    Args:
        temperature: (rows,), K.
        n_atoms: number of atoms.
        kinetic: (rows,), eV.
        target: temperature of the thermostat, K; None uses the mean.
    """
    mean, std = float(temperature.mean()), float(temperature.std())
    degrees, degrees_from = max(3 * n_atoms - 3, 1), "3 × atoms − 3, without constraints"
    if kinetic is not None and mean > 0:
        degrees = max(round(2 * float(kinetic.mean()) / (BOLTZMANN_EV_K * mean)), 1)
        degrees_from = "kinetic energy and temperature in the log"
    expected = (mean if target is None else target) * math.sqrt(2 / degrees)
    error = std * math.sqrt(statistical_inefficiency(temperature) / len(temperature))
    return TemperatureSummary(mean, error, std, expected, target, degrees, degrees_from)
