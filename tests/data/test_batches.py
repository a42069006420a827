"""A batch is its structures one after the other, whatever their sizes and labels."""

import numpy as np
import pytest
import torch

from so3k_md.data import Dataset, Frame, batches, to_graph
from so3k_md.errors import So3kError


def frame(n, place, **labels):
    rng = np.random.default_rng(n)
    values = {"energy": None, "forces": None, "stress": None, "cell": None, "pbc": np.zeros(3, bool)} | labels
    return Frame(np.full(n, 6), rng.random((n, 3)) * 4, place=place, source="made", **values)


FRAMES = [
    frame(3, 0, energy=-1.0, forces=np.ones((3, 3))),
    frame(1, 1, energy=0.0),
    frame(5, 2, stress=np.eye(3), cell=np.diag([5.0, 6.0, 7.0]), pbc=np.ones(3, bool)),
    frame(2, 3, forces=np.full((2, 3), 2.0)),
]


def test_batches_mix_sizes():
    dataset = Dataset(FRAMES, cutoff=4.0)
    batch = dataset.batch([2, 0, 1])
    assert batch.graph.frame.tolist() == [0] * 5 + [1] * 3 + [2]
    start = 0
    for frame_ in (FRAMES[2], FRAMES[0], FRAMES[1]):
        alone = to_graph(frame_, 4.0)
        n, pairs = len(frame_.numbers), len(alone.idx_i)
        chosen = (batch.graph.idx_i >= start) & (batch.graph.idx_i < start + n)
        assert int(chosen.sum()) == pairs
        torch.testing.assert_close(batch.graph.vectors[chosen], alone.vectors, rtol=0, atol=0)
        torch.testing.assert_close(batch.graph.idx_j[chosen] - start, alone.idx_j, rtol=0, atol=0)
        start += n


def test_targets_say_what_is_missing():
    targets = Dataset(FRAMES, cutoff=4.0).batch([0, 1, 2, 3]).targets
    assert targets.has_energy.tolist() == [True, True, False, False]
    assert targets.energy.tolist() == [-1.0, 0.0, 0.0, 0.0]
    assert targets.has_forces.tolist() == [True] * 3 + [False] * 6 + [True] * 2
    assert targets.forces.sum(1).tolist() == [3.0] * 3 + [0.0] * 6 + [6.0] * 2
    assert targets.has_stress.tolist() == [False, False, True, False]
    assert targets.volume.tolist() == pytest.approx([1.0, 1.0, 210.0, 1.0])
    assert targets.n_atoms.tolist() == [3, 1, 5, 2]
    assert {t.dtype for t in (targets.energy, targets.forces, targets.stress, targets.volume)} == {
        torch.float64
    }


def test_order_of_batches():
    dataset = Dataset(FRAMES, cutoff=4.0)
    sizes = [batch.targets.n_atoms.tolist() for batch in batches(dataset, 3)]
    assert sizes == [[3, 1, 5], [2]]
    sizes = [batch.targets.n_atoms.tolist() for batch in batches(dataset, 2, np.array([3, 0, 2, 1]))]
    assert sizes == [[2, 3], [5, 1]]
    moved = dataset.batch([0]).to("cpu")
    assert moved.graph.species.tolist() == [6, 6, 6]


def test_overlapping_atoms_are_named_with_their_frame():
    bad = frame(2, 7)._replace(positions=np.zeros((2, 3)))
    with pytest.raises(So3kError, match="made, frame 7: atoms 0 and 1 lie on the same spot"):
        Dataset([FRAMES[0], bad], cutoff=4.0)
