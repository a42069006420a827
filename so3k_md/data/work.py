"""Checks forces against energies: compares the work between similar frames with the energy difference."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from so3k_md.data.frames import Frame

Floats = NDArray[np.float64]

MOST_GROUPS = 40  # of frames with the same atoms
MOST_FRAMES = 64  # of each group
FEWEST_PAIRS = 8
FLOOR = 0.03  # of the median squared curvature, so that no pair has more than about 30 times a typical weight


class Ratio(NamedTuple):
    """Ratio of the work of the forces to the energy difference, from many pairs of frames."""

    value: float  # 1 where forces and energies have the same units and sign
    error: float  # standard error
    correlation: float  # from −1 to 1
    pairs: int


def work_over_rise(frames: Sequence[Frame]) -> Ratio | None:
    """Regression W = ratio ΔE through the origin, or None where no two frames have the same atoms.

    W = −½ (F_a + F_b) · (r_b − r_a) differs from ΔE by terms of third order in r_b − r_a. The weight of a
    pair is 1 / ((F_b − F_a) · (r_b − r_a))²: this second-order term, the curvature, estimates the error of W.
    Frames without periodic axes are superimposed first; periodic ones must share their cell.

    Args:
        frames: with energies and forces; others do not count.
    """
    groups = defaultdict(list)
    for frame in frames:
        if frame.energy is not None and frame.forces is not None and len(frame.numbers) > 1:
            groups[frame.numbers.tobytes(), frame.pbc.tobytes(), _shape(frame)].append(frame)
    most = sorted((group for group in groups.values() if len(group) > 1), key=len, reverse=True)
    found = [pair for group in most[:MOST_GROUPS] for pair in _near_pairs(group)]
    if len(found) < FEWEST_PAIRS:
        return None
    work, difference, curvature = np.array(found).T
    weight = 1.0 / (curvature**2 + FLOOR * np.median(curvature**2) + 1e-300)
    norm = float((weight * difference * difference).sum())
    if norm == 0:
        return None
    value = float((weight * work * difference).sum()) / norm
    residual = work - value * difference
    error = float(np.sqrt((weight**2 * difference**2 * residual**2).sum())) / norm
    sizes = norm * float((weight * work * work).sum())
    return Ratio(
        value, error, float((weight * work * difference).sum()) / max(sizes, 1e-300) ** 0.5, len(work)
    )


def _shape(frame: Frame) -> bytes:
    return b"" if frame.cell is None or not frame.pbc.any() else np.round(frame.cell, 6).tobytes()


def _near_pairs(group: Sequence[Frame]) -> Iterator[tuple[float, float, float]]:
    """Work, energy difference and curvature between each frame and the frame nearest to it."""
    chosen = [group[i] for i in np.unique(np.linspace(0, len(group) - 1, MOST_FRAMES).astype(int))]
    points = np.array([frame.positions - frame.positions.mean(axis=0) for frame in chosen])
    forces = np.array([frame.forces for frame in chosen])
    energies = np.array([frame.energy for frame in chosen])
    inverse = (
        np.linalg.pinv(np.where(chosen[0].pbc[:, None], chosen[0].cell, 0.0)) if _shape(chosen[0]) else None
    )
    used = set()
    for a in range(len(chosen)):
        if inverse is None:
            rotations = _rotations(points[a], points)
            rotated, rotated_forces = points @ rotations, forces @ rotations
            displacement = rotated - points[a]
        else:
            rotated_forces = forces
            displacement = points - points[a]
            displacement = displacement - np.round(displacement @ inverse) @ chosen[0].cell
            displacement = displacement - displacement.mean(axis=1, keepdims=True)
        distance = (displacement * displacement).sum(axis=(1, 2))
        distance[a] = np.inf
        b = int(distance.argmin())
        if np.isfinite(distance[b]) and distance[b] > 0 and (min(a, b), max(a, b)) not in used:
            used.add((min(a, b), max(a, b)))
            work = -0.5 * float(((forces[a] + rotated_forces[b]) * displacement[b]).sum())
            curvature = float(((rotated_forces[b] - forces[a]) * displacement[b]).sum())
            yield work, float(energies[b] - energies[a]), curvature


def _rotations(target: Floats, points: Floats) -> Floats:
    """Rotations that superimpose point sets (m, n, 3) on the target (n, 3), to multiply from the right."""
    u, _, v = np.linalg.svd(np.swapaxes(points, 1, 2) @ target)
    sign = np.sign(np.linalg.det(u @ v))
    u[:, :, 2] *= sign[:, None]
    return np.asarray(u @ v)
