"""Statistics of the labels from which a new model starts: element energies and the scale of forces."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from so3k_md.data.frames import Frame
from so3k_md.errors import So3kError


class Statistics(NamedTuple):
    """Energy of each element, and the scale of the remaining energies."""

    shift: dict[int, float]  # atomic number -> eV
    scale: float  # eV/Å, standard deviation of the force components; 1 without forces
    source: str = "fit"  # isolated atoms, given, fit, mean or none
    rest: float = 0.0  # eV, mean energy per atom that remains after given energies; 0 for fitted ones


REFERENCES = ("auto", "least_squares", "mean", "none")
SOURCES = {"least_squares": "fit", "mean": "mean", "none": "none"}


def fit_statistics(
    frames: Sequence[Frame], reference: str = "least_squares", known: Mapping[int, float] | None = None
) -> Statistics:
    """Reference energies and force scale of the training frames, in float64.

    least_squares: e minimises Σ (E − Σ_Z n_Z e_Z)²; the solution of smallest norm if compositions do not
    determine e (one molecule only). mean: e = Σ E / Σ n for each element. none: zeros. auto: the known
    energies if each element has one, otherwise least_squares.

    Args:
        frames: training frames; those without energy or forces are ignored.
        reference: auto, least_squares, mean or none.
        known: energies of isolated atoms by atomic number, eV.

    Raises:
        So3kError: unknown reference, or no energies to fit.
    """
    if reference not in REFERENCES:
        raise So3kError(f"unknown energy reference '{reference}': choose from {', '.join(REFERENCES)}")
    elements = np.unique(np.concatenate([frame.numbers for frame in frames]))
    scale = force_scale(frames)
    labelled = [(frame.numbers, frame.energy) for frame in frames if frame.energy is not None]
    if reference == "none":
        return Statistics(dict.fromkeys(elements.tolist(), 0.0), scale, "none")
    if not labelled:
        raise So3kError(
            "no training frame has an energy to fit references to: set energy_key, or reference to none"
        )
    counts = np.array([[(numbers == z).sum() for z in elements] for numbers, _ in labelled], dtype=np.float64)
    energies = np.array([energy for _, energy in labelled])
    if reference == "auto" and known and set(elements.tolist()) <= set(known):
        shift = np.array([known[z] for z in elements.tolist()])
        several = counts.sum(axis=1) > 1
        rest = float((energies - counts @ shift)[several].sum() / max(1.0, counts[several].sum()))
        return Statistics(
            dict(zip(elements.tolist(), shift.tolist(), strict=True)), scale, "isolated atoms", rest
        )
    if reference == "mean":
        shift = np.full(len(elements), energies.sum() / counts.sum())
    else:
        shift = least_squares(counts, energies)
    source = SOURCES.get(reference, "fit")
    return Statistics(dict(zip(elements.tolist(), shift.tolist(), strict=True)), scale, source)


def force_scale(frames: Sequence[Frame]) -> float:
    """Standard deviation of all force components, eV/Å; 1 if there are none or all are equal."""
    forces = [frame.forces.reshape(-1) for frame in frames if frame.forces is not None]
    spread = float(np.concatenate(forces).std()) if forces else 0.0
    return spread if spread > 0 else 1.0


def least_squares(counts: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """e that minimises Σ (E − counts e)², of smallest norm; a second solve restores the digits of large E.

    Args:
        counts: atoms of each element, (frames, elements).
        energies: E, (frames,), eV.
    """
    solution = np.linalg.lstsq(counts, energies, rcond=1e-10)[0]
    return solution + np.linalg.lstsq(counts, energies - counts @ solution, rcond=1e-10)[0]
