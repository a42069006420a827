"""A batch is its structures one after the other, whatever their sizes and labels."""

import numpy as np
import pytest
import torch

from so3k_md import ModelConfig, So3krates
from so3k_md.data import Dataset, Frame, batches, to_graph
from so3k_md.errors import So3kError, So3kWarning

CELL = np.array([[5.0, 0, 0], [1.0, 6, 0], [0, 0.5, 7.0]])


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
    with pytest.raises(So3kError, match="made, frame 7: atoms 0 and 1 have the same position"):
        Dataset([FRAMES[0], bad], cutoff=4.0)


@pytest.fixture(scope="module", params=["sphc", "efa"])
def model(request):
    return So3krates(ModelConfig(nonlocal_=request.param, features=12))


def water(place=0, **changes):
    """A whole molecule and another one that is broken over the boundary."""
    one = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    positions = np.concatenate([one, one + 3.0 + [[0, 0, 0], [0, 0, 0], [1, -1, 2]] @ CELL])
    frame_ = frame(6, place, cell=CELL, pbc=np.ones(3, bool))
    return frame_._replace(positions=positions, group=np.array([8, 8, 8, 5, 5, 5]))._replace(**changes)


def test_groups_are_numbered_through_a_batch_and_whole(model):
    open_one = water(cell=None, pbc=np.zeros(3, bool), group=None)
    open_one = open_one._replace(positions=water().positions / 4)
    graph = Dataset([water(), open_one, water()], 3.0, model).batch([0, 1, 2]).graph
    assert graph.group.tolist() == [1, 1, 1, 0, 0, 0] + 6 * [2] + [4, 4, 4, 3, 3, 3]
    assert (graph.positions[3:6] - graph.positions[:3]).std(0).max() < 1e-12
    assert graph.cell.shape == (3, 3, 3)
    assert not graph.cell[1].any()
    assert (graph.cell[2].numpy() == CELL).all()


def test_a_local_model_has_no_use_for_groups():
    local = So3krates(ModelConfig(features=12))
    for given in (None, local):
        graph = to_graph(water(group=np.array(["x"])), 3.0, given, "all")
        assert not graph.group.any()
        assert (graph.positions.numpy() == water().positions).all()


def test_all_makes_one_group_of_the_images_given(model):
    narrow = water(positions=water().positions / 4, cell=CELL / 4)
    with pytest.warns(So3kWarning, match="neither extensive nor separable"):
        graph = to_graph(narrow, 1.0, model, "all")
    assert not graph.group.any()
    assert (graph.positions.numpy() == narrow.positions).all()


@pytest.mark.parametrize(
    ("group", "says"),
    [
        (None, "made, frame 3: is periodic and does not define the groups"),
        (np.array([1, 1, 1]), r"made, frame 3: group has shape \(3,\), expected \(6,\)"),
        (np.array([1, 1, 1, 2, 2, np.nan]), "made, frame 3: group of atom 5 is nan"),
        (np.array([1, 1, 1.5, 2, 2, 2]), "made, frame 3: group of atom 2 is 1.5"),
        (np.array(list("aaabbb")), "made, frame 3: group contains 'a'"),
    ],
)
def test_unusable_groups_are_refused_with_file_and_frame(model, group, says):
    with pytest.raises(So3kError, match=says):
        Dataset([water(), water(3, group=group)], 3.0, model)


def test_frames_that_the_waves_do_not_reach_are_refused():
    narrow = So3krates(ModelConfig(nonlocal_="efa", efa_reach=4.0, features=12))
    long = water(2, pbc=np.zeros(3, bool), group=None)
    assert Dataset([water()], 3.0, narrow)
    with pytest.raises(So3kError, match=r"made, frame 2: the group of atom 0 is 1\d\.\d Å wide.* 4.0 Å"):
        Dataset([water(), long], 3.0, narrow)
    lattice = So3krates(ModelConfig(nonlocal_="efa", efa_waves="reciprocal", features=12))
    assert Dataset([water()], 3.0, lattice)
    with pytest.raises(So3kError, match="made, frame 2: has an open axis"):
        Dataset([water(), long], 3.0, lattice)
