"""The neighbor list equals a sum over images, whatever the cell and wherever the atoms are."""

import itertools

import numpy as np
import pytest

from so3k_md.errors import So3kError
from so3k_md.structure.build import build_graph
from so3k_md.structure.pairs import neighbor_pairs

CUTOFF = 4.5
CELLS = {
    "cubic": np.eye(3) * 8.0,
    "smaller than the cutoff": np.diag([2.0, 2.5, 3.0]),
    "triclinic": np.array([[6.0, 0, 0], [2.0, 5, 0], [-1.5, 2.2, 4.0]]),
    "left-handed": np.array([[6.0, 0, 0], [2.0, 5, 0], [-1.5, 2.2, -4.0]]),
    "very skewed": np.array([[5.1, -1.2, 8.2], [0, 3.0, 0.05], [0, 0, 2.9]]),
}


def brute_force(positions, cell, pbc, cutoff):
    """Pairs (i, j, s1, s2, s3) from a plain loop over images."""
    images = []
    difference = positions[None] - positions[:, None]
    for k in range(3):
        others = cell[[m for m in range(3) if m != k and pbc[m]]]
        across = (
            cell[k] - others.T @ np.linalg.lstsq(others.T, cell[k], rcond=None)[0] if len(others) else cell[k]
        )
        height = np.linalg.norm(across) if pbc[k] else 1.0
        reach = np.abs(difference @ across).max() / height if pbc[k] else 0.0
        most = int(np.ceil((cutoff + reach) / height)) + 1 if pbc[k] else 0
        images.append(range(-most, most + 1))
    pairs = set()
    for shift in itertools.product(*images):
        distance = np.linalg.norm(difference + np.array(shift) @ cell, axis=-1)
        found = zip(*np.nonzero(distance <= cutoff), strict=True)
        pairs |= {(int(i), int(j), *shift) for i, j in found if i != j or any(shift)}
    return pairs


def as_set(idx_i, idx_j, shifts):
    pairs = [(int(i), int(j), *map(int, s)) for i, j, s in zip(idx_i, idx_j, shifts, strict=True)]
    assert len(pairs) == len(set(pairs)), "a pair is listed twice"
    return set(pairs)


@pytest.mark.parametrize("pbc", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("name", CELLS)
def test_equals_brute_force(name, pbc):
    rng = np.random.default_rng(7)
    cell = CELLS[name]
    for n, stretch in [(1, 1.0), (2, 5.0), (12, 1.0), (12, 4.0)]:
        positions = (rng.random((n, 3)) * stretch - 0.3 * (stretch - 1)) @ cell
        found = as_set(*neighbor_pairs(positions, cell, pbc, CUTOFF))
        assert found == brute_force(positions, cell, pbc, CUTOFF)


@pytest.mark.parametrize("name", CELLS)
def test_vectors_do_not_depend_on_the_image_an_atom_is_in(name):
    rng = np.random.default_rng(8)
    cell = CELLS[name]
    positions = rng.random((10, 3)) @ cell
    far = positions + rng.integers(-300, 300, (10, 3)) @ cell
    wrapped, unwrapped = (build_graph(np.ones(10), p, cell, [True] * 3, CUTOFF) for p in (positions, far))
    key = [np.lexsort(np.round(g.vectors.numpy(), 6).T[::-1]) for g in (wrapped, unwrapped)]
    np.testing.assert_allclose(wrapped.vectors[key[0]], unwrapped.vectors[key[1]], atol=1e-9)
    np.testing.assert_array_equal(wrapped.idx_i[key[0]], unwrapped.idx_i[key[1]])


def test_rows_of_open_axes_are_not_used():
    rng = np.random.default_rng(9)
    positions = rng.random((10, 3)) * 6
    full = neighbor_pairs(positions, np.diag([5.0, 4.0, 3.0]), [True, True, False], CUTOFF)
    slab = neighbor_pairs(positions, np.diag([5.0, 4.0, 0.0]), [True, True, False], CUTOFF)
    assert as_set(*full) == as_set(*slab)
    chain = neighbor_pairs(positions, np.diag([0.0, 4.0, 0.0]), [False, True, False], CUTOFF)
    assert as_set(*chain) == brute_force(positions, np.diag([1.0, 4.0, 1.0]), [False, True, False], CUTOFF)


@pytest.mark.parametrize("distance", [1e3, 1e4, 1e6, 9e6])
@pytest.mark.parametrize("cell", [None, np.eye(3) * 10.0])
def test_molecules_very_far_apart_cost_nothing(distance, cell):
    near = np.array([[0.0, 0, 0], [1.0, 0, 0], [0, 1.2, 0]])
    positions = np.concatenate([near, near + distance * np.array([0.3, -0.5, 0.8])])
    idx_i, idx_j, _ = neighbor_pairs(positions, cell, [False] * 3, CUTOFF)
    assert len(idx_i) == 12
    assert ((idx_i < 3) == (idx_j < 3)).all()


def test_gaps_close_without_adding_pairs():
    line = np.zeros((4, 3))
    line[:, 0] = [0.0, CUTOFF + 1e-6, 100.0, 100.0 + CUTOFF - 1e-6]
    idx_i, idx_j, _ = neighbor_pairs(line, None, [False] * 3, CUTOFF)
    assert as_set(idx_i, idx_j, np.zeros((len(idx_i), 3))) == {(2, 3, 0, 0, 0), (3, 2, 0, 0, 0)}


def test_lone_atom_and_no_atom():
    assert len(neighbor_pairs(np.zeros((1, 3)), None, [False] * 3, CUTOFF)[0]) == 0
    assert len(neighbor_pairs(np.zeros((0, 3)), np.eye(3), [True] * 3, CUTOFF)[0]) == 0
    graph = build_graph([8], np.zeros((1, 3)), None, [False] * 3, CUTOFF)
    assert graph.vectors.shape == (0, 3)
    assert graph.species.tolist() == [8]


def test_graph_vectors_are_those_of_the_pairs():
    rng = np.random.default_rng(10)
    cell = CELLS["triclinic"]
    positions = rng.random((6, 3)) @ cell * 2
    graph = build_graph([1, 6, 7, 8, 1, 1], positions, cell, [True] * 3, CUTOFF)
    idx_i, idx_j, shifts = neighbor_pairs(positions, cell, [True] * 3, CUTOFF)
    np.testing.assert_allclose(graph.vectors, positions[idx_j] + shifts @ cell - positions[idx_i], atol=1e-12)
    assert graph.vectors.norm(dim=1).max() <= CUTOFF
    assert str(graph.vectors.dtype) == "torch.float64"


@pytest.mark.parametrize(
    ("positions", "cell", "pbc", "says"),
    [
        ([[0, 0, 0], [np.nan, 0, 0]], None, False, "atom 1"),
        ([[np.inf, 0, 0]], None, False, "finite"),
        ([[1e9, 0, 0]], None, False, "time step"),
        ([[0, 0, 0]], None, True, "no extent"),
        ([[0, 0, 0]], [[5, 0, 0], [0, 5, 0], [5, 5, 0]], True, "no extent"),
        ([[0, 0, 0]], np.diag([5, 5, 0]), [True, False, True], "no extent"),
        ([[0, 0, 0]], np.diag([5, np.nan, 5]), True, "not finite"),
        ([[0, 0, 0]], [5, 5, 5], True, "shape"),
        ([[0, 0, 0]], np.eye(3) * 0.01, True, "only 0.01 Å thick"),
        ([[1, 1, 1], [1, 1, 1]], None, False, "the same position"),
        ([[1, 1, 1], [6, 1, 1]], np.eye(3) * 5, True, "the same position"),
    ],
)
def test_refuses(positions, cell, pbc, says):
    with pytest.raises(So3kError, match=says):
        build_graph([1] * len(positions), positions, cell, np.broadcast_to(pbc, (3,)), CUTOFF)
