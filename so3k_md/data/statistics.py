"""What a model knows of its labels before it learns: the energy of each element and the size of forces."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from so3k_md.data.frames import Frame
from so3k_md.errors import So3kError


class Statistics(NamedTuple):
    """Energy of each element and the scale of what remains."""

    shift: dict[int, float]  # atomic number -> eV
    scale: float  # eV/Å, standard deviation of the force components; 1 where there are no forces


def fit_statistics(frames: Sequence[Frame], reference: str = "least_squares") -> Statistics:
    """Reference energies and force scale of the training frames, in float64.

    least_squares: e minimises Σ (E − Σ_Z n_Z e_Z)²; where compositions do not decide (one molecule only), the
    solution of smallest norm. mean: e = Σ E / Σ n for every element. none: zeros.

    Args:
        frames: training frames; those without energy or forces do not count.
        reference: least_squares, mean or none.

    Raises:
        So3kError: unknown reference, or no energies to fit.
    """
    if reference not in ("least_squares", "mean", "none"):
        raise So3kError(f"unknown energy reference '{reference}': choose from least_squares, mean, none")
    elements = np.unique(np.concatenate([frame.numbers for frame in frames]))
    labelled = [(frame.numbers, frame.energy) for frame in frames if frame.energy is not None]
    shift = np.zeros(len(elements))
    if reference != "none" and not labelled:
        raise So3kError(
            "no training frame has an energy to fit references to: set energy_key, or reference to none"
        )
    if reference != "none":
        counts = np.array(
            [[(numbers == z).sum() for z in elements] for numbers, _ in labelled], dtype=np.float64
        )
        energies = np.array([energy for _, energy in labelled])
        shift = (
            _solve(counts, energies)
            if reference == "least_squares"
            else shift + energies.sum() / counts.sum()
        )
    return Statistics({int(z): float(e) for z, e in zip(elements, shift, strict=True)}, force_scale(frames))


def force_scale(frames: Sequence[Frame]) -> float:
    """Standard deviation of all force components, eV/Å; 1 where there are none or all are equal."""
    forces = [frame.forces.reshape(-1) for frame in frames if frame.forces is not None]
    spread = float(np.concatenate(forces).std()) if forces else 0.0
    return spread if spread > 0 else 1.0


def _solve(counts: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Least squares of smallest norm; a second pass on the residual regains the digits of large energies."""
    solution = np.linalg.lstsq(counts, energies, rcond=1e-10)[0]
    return solution + np.linalg.lstsq(counts, energies - counts @ solution, rcond=1e-10)[0]
