"""Cell lists find the pairs that a search over all pairs finds."""

import numpy as np
import pytest

from so3k_md.analysis.contacts import close_pairs
from so3k_md.analysis.geometry import minimum_image

TRICLINIC = np.array([[10.0, 0.0, 0.0], [4.0, 9.0, 0.0], [-3.0, 2.0, 8.0]])
NO, ALL = (False, False, False), (True, True, True)


@pytest.mark.parametrize(
    ("cell", "pbc", "cutoff"),
    [
        (None, NO, 2.0),
        (None, NO, 50.0),
        (np.diag([12.0, 12.0, 12.0]), ALL, 2.0),
        (np.diag([12.0, 12.0, 12.0]), ALL, 5.5),  # two bins along each axis
        (np.diag([12.0, 12.0, 4.0]), ALL, 1.9),
        (np.diag([12.0, 12.0, 12.0]), ALL, 7.0),  # one bin
        (TRICLINIC, ALL, 2.0),
        (TRICLINIC, (True, True, False), 2.0),
        (TRICLINIC, (False, True, False), 1.0),
    ],
)
def test_pairs_are_those_of_the_search_over_all(
    cell: np.ndarray | None, pbc: tuple[bool, bool, bool], cutoff: float
) -> None:
    rng = np.random.default_rng(3)
    positions = rng.uniform(-15, 25, size=(4, 70, 3))
    cells = None if cell is None else cell * (1 + 0.05 * np.arange(4))[:, None, None]
    i, j = np.triu_indices(70, 1)
    distance = np.linalg.norm(minimum_image(positions[:, j] - positions[:, i], cells, pbc), axis=-1)
    frame, pair = np.nonzero(distance < cutoff)
    found = close_pairs(positions, cells, pbc, cutoff)
    assert len(frame) > 3
    assert found.frame.tolist() == frame.tolist()
    assert found.i.tolist() == i[pair].tolist()
    assert found.j.tolist() == j[pair].tolist()
    assert found.distance == pytest.approx(distance[frame, pair])


def test_an_atom_far_away_costs_no_memory() -> None:
    positions = np.zeros((1, 30, 3)) + 1.5 * np.arange(30)[:, None]
    positions[0, 3] = 1e9
    assert len(close_pairs(positions, None, NO, 1.0).i) == 0
