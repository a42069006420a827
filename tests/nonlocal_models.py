"""Small models with attention beyond the cutoff, and molecules that are wider than the cutoff."""

from dataclasses import replace

import numpy as np
from small_models import CONFIGS

from so3k_md import Graph
from so3k_md.structure.build import build_graph

LOUD = {"cutoff": 3.0, "attention_scale": 1.0}  # cutoff in Å
SPHC = {"nonlocal_": "sphc", "kappa": 1.3, "nonlocal_p": 5}
EFA = {"nonlocal_": "efa", "efa_features": 6, "efa_values": 5}
LEBEDEV = EFA | {"efa_waves": "lebedev", "efa_grid": 50, "efa_reach": 10.5}
RECIPROCAL = EFA | {"efa_waves": "reciprocal", "efa_k_max": 1.6}
NONLOCAL = {
    "sphc-2022": replace(CONFIGS["so3krates-2022"], **LOUD, **SPHC),
    "sphc-2024": replace(CONFIGS["euclidean-2024"], **LOUD, **SPHC, temperature=0.2, zbl=True),
    "efa-lebedev": replace(CONFIGS["euclidean-2024"], **LOUD, **LEBEDEV),
    "efa-reciprocal": replace(CONFIGS["so3krates-2022"], **LOUD, **RECIPROCAL),
}
SIZES = (8, 5, 2, 1)
CELL = np.array([[9.3, 0.0, 0.0], [0.9, 9.7, 0.0], [-0.6, 0.4, 10.1]])


def chain(rng: np.random.Generator, n: int, start: np.ndarray) -> np.ndarray:
    """A bent chain of n atoms, (n, 3), Å, whose ends lie beyond the cutoff of each other."""
    steps = 1.2 * np.array([1.0, 0.5, 0.2]) + rng.normal(scale=0.25, size=(n, 3))
    return start + np.cumsum(steps, axis=0)


def molecules() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atomic numbers, positions (Å) and groups of molecules of 8, 5, 2 and 1 atoms that touch."""
    rng = np.random.default_rng(8)
    starts = np.array([[0.0, 0.0, 0.0], [2.0, -1.5, 2.0], [3.0, 4.0, 0.5], [6.0, 0.3, 5.0]])
    parts = [chain(rng, n, start) for n, start in zip(SIZES, starts, strict=True)]
    group = np.repeat(np.arange(len(SIZES)), SIZES)
    return rng.choice([1, 6, 8], size=len(group)), np.concatenate(parts), group


def group_graph(
    numbers: np.ndarray,
    positions: np.ndarray,
    group: np.ndarray,
    cutoff: float,
    cell: np.ndarray | None = None,
) -> Graph:
    """The graph of one structure with groups; periodic along all axes if a cell is given."""
    return build_graph(numbers, positions, cell, np.full(3, cell is not None), cutoff, group=group)
