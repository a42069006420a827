"""The verdict names what broke first, where and when."""

import numpy as np
import pytest

from so3k_md.analysis.geometry import pair_distances
from so3k_md.analysis.stability import Stability, judge
from so3k_md.analysis.trajectory import Trajectory

WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
BONDS = np.array([[0, 1], [0, 2]])


def verdict(positions: np.ndarray, bonds: np.ndarray = BONDS, cell: np.ndarray | None = None) -> Stability:
    n_frames, n_atoms = positions.shape[:2]
    numbers = np.array([8, 1, 1] * (n_atoms // 3))
    cells = None if cell is None else np.repeat(cell[None], n_frames, axis=0)
    pbc = (cell is not None,) * 3
    data = Trajectory(
        positions, cells, pbc, "", 0.5 * np.arange(n_frames), "ps", "", None, numbers,
        tuple("OHH" * (n_atoms // 3)), bonds, "", tuple(f"{'OHH'[k % 3]}{k}" for k in range(n_atoms)),
        tuple("OHH" * (n_atoms // 3)), np.arange(n_atoms) // 3,
    )  # fmt: skip
    return judge(data, pair_distances(positions, bonds, cells, pbc))


@pytest.fixture
def still() -> np.ndarray:
    return np.repeat(WATER[None], 20, axis=0)


def test_a_still_molecule_is_stable(still: np.ndarray) -> None:
    found = verdict(still)
    assert found.stable
    assert found.verdict.startswith("Stable: 20 frames")
    assert (found.first_bad_frame, found.atoms, found.bad_frames, found.events) == (None, (), 0, ())


@pytest.mark.parametrize(("stretch", "stable"), [(1.49, True), (1.51, False)])
def test_a_bond_breaks_at_one_and_a_half_times_its_length(
    still: np.ndarray, stretch: float, stable: bool
) -> None:
    still[7:, 1, 0] *= stretch
    found = verdict(still)
    assert found.stable is stable
    if not stable:
        assert (found.first_bad_frame, found.first_bad_time, found.atoms) == (7, 3.5, (0, 1))
        assert found.bad_frames == 13
        assert "bond O0–H1 is broken, 1.45 Å" in found.verdict
        assert "frame 7 (3.5 ps)" in found.verdict


@pytest.mark.parametrize(("distance", "stable"), [(0.64, True), (0.62, False)])
def test_atoms_overlap_within_two_thirds_of_their_radii(
    still: np.ndarray, distance: float, stable: bool
) -> None:
    """R_O + R_H = 0.97 Å, so the limit is 0.6305 Å."""
    still[4, 1, 0] = distance
    found = verdict(still)
    assert found.stable is stable
    if not stable:
        assert (found.first_bad_frame, found.atoms, found.bad_frames) == (4, (0, 1), 1)
        assert "overlap at 0.62 Å" in found.verdict


def test_overlap_through_the_boundary_of_the_box(still: np.ndarray) -> None:
    two = np.concatenate([still + 0.05, still + [9.8, 0.05, 0.05]], axis=1)
    bonds = np.concatenate([BONDS, BONDS + 3])
    assert verdict(two, bonds).stable
    found = verdict(two, bonds, np.diag([10.0, 10.0, 10.0]))
    assert not found.stable
    assert found.first_bad_frame == 0
    assert (0, 3) in {event.atoms for event in found.events}


def test_positions_that_are_no_numbers(still: np.ndarray) -> None:
    still[5, 2] = np.nan
    still[9:, 0, 1] = np.inf
    found = verdict(still)
    assert not found.stable
    assert (found.first_bad_frame, found.atoms, found.bad_frames) == (5, (2,), 15)
    assert "not finite numbers, atom H2" in found.verdict


def test_a_first_frame_that_is_no_number(still: np.ndarray) -> None:
    found = verdict(np.full_like(still, np.nan))
    assert (found.stable, found.first_bad_frame, found.bad_frames) == (False, 0, 20)


def test_atoms_in_another_order_than_the_topology_are_seen_in_the_first_frame() -> None:
    chain = 1.5 * np.arange(6)[:, None] * [1.0, 0.0, 0.0] + np.zeros((3, 6, 3))
    found = verdict(chain, np.array([[0, 5]]))
    assert (found.stable, found.first_bad_frame, found.atoms) == (False, 0, (0, 5))


def test_events_come_in_order_of_time(still: np.ndarray) -> None:
    still[12:, 1, 0] = 3
    still[8:, 2, 1] = 4
    found = verdict(still)
    assert [event.frame for event in found.events] == [8, 12]
    assert found.atoms == (0, 2)
