"""Infrared spectra from the dipole along a run: numbers, peaks and a picture."""

import json
import warnings
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from so3k_md.analysis.dipoles import Dipoles
from so3k_md.analysis.figures import GREY, STYLE, colour, new_figure
from so3k_md.analysis.geometry import Array
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.files import atomic

C_CM_PS = 0.0299792458  # speed of light, cm/ps
# N_A e² / (6 ε_0 c k_B) of ∫ ⟨Ṁ(0)·Ṁ(t)⟩ dt in (e Å)²/ps, as km/mol per cm⁻¹ at 1 K; SI of 2019
INTENSITY_K = 70.3020070697565
RESOLUTION = 10.0  # cm⁻¹
HIGHEST = 4500.0  # cm⁻¹, where the picture ends
FASTEST = 4000.0  # cm⁻¹, above all stretches but that of H2
FEWEST = 32  # rows
LEAST_PEAK = 0.05  # of the highest


class Spectrum(NamedTuple):
    """Absorption of the whole system, as if it were one molecule."""

    source: str
    wavenumber: Array  # (points,), cm⁻¹
    intensity: Array  # (points,), km/mol per cm⁻¹
    peaks: tuple[tuple[float, float], ...]  # wavenumber and intensity of each, the highest first
    resolution: float  # full width at half maximum of a sharp line, cm⁻¹
    temperature: float  # K
    duration: float  # ps
    interval: float  # ps


def infrared_spectrum(run: Dipoles, temperature: float, resolution: float = RESOLUTION) -> Spectrum:
    """A(ν) = N_A / (6 ε_0 c k_B T) ∫ ⟨Ṁ(0)·Ṁ(t)⟩ w(t) cos(2πcνt) dt, over all t; w is Hann's window.

    This is the absorption α(ω) n(ω) V ∝ ω (1 − exp(−βħω)) C(ω) of the quantum correlation function C of the
    dipole, with the harmonic correction C(ω) = βħω / (1 − exp(−βħω)) C_cl(ω) of the classical one: no factor
    is left. ∫ A dν over the band of a normal mode is its harmonic intensity. Ṁ is a difference of
    neighboring rows, whose damping of high frequencies is divided out.

    Args:
        run: the dipole at equal intervals.
        temperature: K.
        resolution: wanted, cm⁻¹; no finer than half of the run allows.

    Raises:
        So3kError: too few rows, or settings that cannot be.

    Source: R. Ramírez, T. López-Ciudad, P. Kumar P, D. Marx, J. Chem. Phys. 121, 3973 (2004); M. Thomas,
        M. Brehm, R. Fligg, P. Vöhringer, B. Kirchner, Phys. Chem. Chem. Phys. 15, 6608 (2013).
    """
    n = len(run.dipole) - 1
    if n + 1 < FEWEST:
        raise So3kError(f"{run.source} has {n + 1} rows, a spectrum needs at least {FEWEST}: run longer")
    if not (temperature > 0 and resolution > 0):
        raise So3kError(f"temperature {temperature:g} K and resolution {resolution:g} cm⁻¹ must be positive")
    step = run.interval
    if (fastest := 0.5 / (C_CM_PS * step)) < FASTEST:
        warnings.warn(
            f"rows of {run.source} are {1e3 * step:g} fs apart and resolve up to {fastest:.0f} cm⁻¹; faster "
            f"motion appears at wrong places: write a row every {500 / (C_CM_PS * FASTEST):.0f} fs or less",
            So3kWarning,
            stacklevel=2,
        )
    velocity = np.diff(run.dipole, axis=0) / step
    lags = int(min(n // 2, max(2, round(1.0 / (C_CM_PS * resolution * step)))))
    correlation = autocorrelation(velocity - velocity.mean(axis=0), lags)
    window = np.cos(0.5 * np.pi * np.arange(lags) / lags) ** 2
    size = 8 * 2 ** int(np.ceil(np.log2(lags)))  # zeros beyond the window make the curve smooth
    damped = np.zeros(size)
    damped[:lags] = correlation * window
    damped[-lags + 1 :] = damped[1:lags][::-1]
    frequency = np.fft.rfftfreq(size, step)  # 1/ps
    response = np.sinc(frequency * step) ** 2
    intensity = INTENSITY_K / temperature * step * np.fft.rfft(damped).real / response
    wavenumber = frequency / C_CM_PS
    finest = 1.0 / (C_CM_PS * lags * step)
    peaks = find_peaks(wavenumber, intensity)
    duration = n * step
    return Spectrum(run.source, wavenumber, intensity, peaks, finest, temperature, duration, step)


def autocorrelation(values: Array, lags: int) -> Array:
    """⟨v(0)·v(t)⟩ over all starts, for the first lags.

    Args:
        values: (rows, components).
        lags: how many, fewer than rows.
    """
    n = len(values)
    transformed = np.fft.rfft(values, 2 * n, axis=0)
    sums = np.fft.irfft((np.abs(transformed) ** 2).sum(axis=1))[:lags]
    return sums / np.arange(n, n - lags, -1)


def find_peaks(x: Array, y: Array) -> tuple[tuple[float, float], ...]:
    """Maxima above a twentieth of the highest, by parabolas through three points, the highest first."""
    inner = y[1:-1]
    rows = 1 + np.flatnonzero((inner > y[:-2]) & (inner >= y[2:]) & (inner > LEAST_PEAK * y.max()))
    left, top, right = y[rows - 1], y[rows], y[rows + 1]
    offset = 0.5 * (left - right) / (left - 2 * top + right)
    found = zip(x[rows] + offset * (x[1] - x[0]), top - 0.25 * (left - right) * offset, strict=True)
    return tuple(sorted(((float(a), float(b)) for a, b in found), key=lambda peak: -peak[1]))


def draw(found: Spectrum) -> Figure:
    """Absorption against wavenumber, its main peaks named."""
    shown = found.wavenumber <= HIGHEST
    x, y = found.wavenumber[shown], found.intensity[shown]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(8.4, 3.8)
        axes = figure.subplots()
        axes.plot(x, y, color=colour(0))
        axes.fill_between(x, y, color=colour(0), alpha=0.13, linewidth=0)
        top = 1.18 * max(float(y.max()), 1e-12)
        for wavenumber, intensity in named_peaks(found):
            axes.annotate(
                f"{wavenumber:.0f}", (wavenumber, intensity), (0, 4), textcoords="offset points",
                ha="center", va="bottom", fontsize=8.5, color=GREY,
            )  # fmt: skip
        axes.set(xlim=(0, x[-1]), ylim=(0, top), xlabel=r"wavenumber / cm$^{-1}$")
        axes.set_ylabel(r"absorption / (km/mol per cm$^{-1}$)")
        axes.set_title(
            f"Infrared spectrum at {found.temperature:g} K: {found.duration:.3g} ps, "
            f"resolution {found.resolution:.3g} cm$^{{-1}}$"
        )
    return figure


def named_peaks(found: Spectrum) -> list[tuple[float, float]]:
    """The highest peaks of the picture of which no two stand closer than their names are wide."""
    chosen: list[tuple[float, float]] = []
    for peak in found.peaks:
        if peak[0] <= HIGHEST and all(abs(peak[0] - other[0]) > HIGHEST / 25 for other in chosen):
            chosen.append(peak)
    return chosen[:8]


def write_spectrum(found: Spectrum, picture: Path, numbers: Path) -> None:
    """The picture as PNG, and everything as JSON.

    Raises:
        So3kError: a file cannot be written.
    """
    figure = draw(found)
    document = found._asdict() | {
        "wavenumber": found.wavenumber.tolist(),
        "intensity": found.intensity.tolist(),
        "units": {"wavenumber": "1/cm", "intensity": "km/mol per 1/cm", "resolution": "1/cm"}
        | {"temperature": "K", "duration": "ps", "interval": "ps"},
        "quantum_correction": "harmonic",
    }
    with atomic(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    with atomic(numbers) as temporary:
        temporary.write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")
