"""Molecules that come broken over the boundary are made whole, whatever the cell and their length."""

import itertools

import numpy as np
import pytest
import torch

from so3k_md import ModelConfig, So3krates
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.needs import needs_of, needs_of_cutoff
from so3k_md.structure.build import build_graph
from so3k_md.structure.groups import (
    announce,
    check_axes,
    check_group_sizes,
    grouping,
    images_matter,
)
from so3k_md.structure.images import (
    GROWTH,
    Unwrapper,
    nearest_images,
    spanning_tree,
    unwrap,
)
from so3k_md.structure.pairs import full_rank

CELLS = {
    "orthorhombic": np.diag([11.0, 12.0, 13.0]),
    "triclinic": np.array([[11.0, 0, 0], [4.0, 12, 0], [-3.5, 5.2, 13.0]]),
    "left-handed": np.array([[11.0, 0, 0], [4.0, 12, 0], [-3.5, 5.2, -13.0]]),
    "very skewed": np.array([[12.0, 0, 0], [25.0, 11, 0], [-17.0, 19.0, 12.0]]),
}
ALL_PBC = list(itertools.product([False, True], repeat=3))


def chain(n, turn):
    """A zigzag of n atoms, 1.3 Å from one to the next and 2.2 Å from second neighbors."""
    steps = np.arange(n)
    straight = np.stack([1.1 * steps, 0.7 * (steps % 2), 0.0 * steps], 1)
    return straight @ np.linalg.qr(np.random.default_rng(turn).normal(size=(3, 3)))[0]


@pytest.fixture(params=CELLS)
def cell(request):
    return CELLS[request.param]


@pytest.fixture
def molecules():
    """Positions and groups of whole molecules: a lone atom, small ones, and one of 22 Å; in mixed order."""
    rng = np.random.default_rng(3)
    parts = [chain(n, turn) + 6 * rng.normal(size=3) for turn, n in enumerate([1, 3, 3, 21, 8])]
    group = np.repeat([7, -2, 3, 12, 4], [len(part) for part in parts])
    order = rng.permutation(len(group))
    return np.concatenate(parts)[order], group[order]


def make_whole(positions, cell, pbc, parent):
    """`unwrap` for arrays and any cell."""
    return unwrap(*(torch.from_numpy(array) for array in (positions, *full_rank(cell, pbc), parent))).numpy()


def broken(positions, cell, pbc, seed=0):
    """Every atom moved by whole lattice vectors of its own."""
    shifts = np.random.default_rng(seed).integers(-3, 4, positions.shape) * pbc
    return positions + shifts @ cell


def assert_whole(found, positions, cell, group):
    """Each group is as it was, up to one lattice vector for all its atoms."""
    for number in set(group):
        moved = found[group == number] - positions[group == number]
        np.testing.assert_allclose(moved, np.broadcast_to(moved[0], moved.shape), atol=1e-11)
        fractional = moved[0] @ np.linalg.inv(cell)
        np.testing.assert_allclose(fractional, np.round(fractional), atol=1e-11)


@pytest.mark.parametrize("pbc", ALL_PBC)
def test_broken_molecules_become_whole(molecules, cell, pbc):
    positions, group = molecules
    torn = broken(positions, cell, pbc)
    parent = spanning_tree(torn, cell, pbc, group)
    assert (group[parent] == group).all()
    assert_whole(make_whole(torn, cell, pbc, parent), positions, cell, group)


def test_whole_molecules_come_back_to_the_last_bit(molecules, cell):
    positions, group = molecules
    for number in set(group):
        positions[group == number] += [[number, -2 * number, 3]] @ cell
    parent = spanning_tree(positions, cell, [True] * 3, group)
    assert (make_whole(positions, cell, [True] * 3, parent) == positions).all()


def test_scripted_equals_eager(molecules, cell):
    positions, group = molecules
    parent = spanning_tree(positions, cell, [True] * 3, group)
    arrays = broken(positions, cell, [True] * 3), cell, np.ones(3, bool), parent
    tensors = [torch.from_numpy(array) for array in arrays]
    eager, scripted = unwrap(*tensors), torch.jit.script(unwrap)(*tensors)
    assert torch.equal(eager, scripted)
    assert_whole(scripted.numpy(), positions, cell, group)


def test_a_wrapped_atom_changes_no_link(molecules, cell):
    positions, group = molecules
    first, second = (
        spanning_tree(broken(positions, cell, [True] * 3, seed), cell, [True] * 3, group) for seed in (1, 2)
    )
    link = [positions - positions[parent] for parent in (first, second)]
    np.testing.assert_allclose(*[np.sort(np.linalg.norm(one, axis=1)) for one in link], atol=1e-10)


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, True)])
@pytest.mark.parametrize("cell", [CELLS["very skewed"], np.diag([2.0, 3.0, 40.0]), CELLS["triclinic"]])
def test_nearest_images_are_the_nearest(cell, pbc):
    pbc = np.array(pbc)
    lattice = np.where(pbc[:, None], cell, 0)
    lattice[~pbc] = np.linalg.svd(lattice[pbc])[2][pbc.sum() :]
    vectors = np.random.default_rng(4).normal(size=(50, 3)) * 15
    shifts = nearest_images(*(torch.from_numpy(array) for array in (vectors, lattice, pbc))).numpy()
    assert (shifts == np.round(shifts)).all()
    assert not shifts[:, ~pbc].any()
    found = vectors + shifts @ lattice
    images = np.array(list(itertools.product(*[range(-9, 10) if flag else [0] for flag in pbc])))
    others = found[:, None] + images @ lattice
    assert (np.linalg.norm(found, axis=1) <= np.linalg.norm(others, axis=2).min(1) + 1e-12).all()


def test_a_box_hardly_larger_than_the_molecule(cell):
    water = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    small = cell * 2.9 / np.linalg.norm(cell[0])
    torn = broken(water, small, [True] * 3)
    parent = spanning_tree(torn, small, [True] * 3, np.zeros(3))
    assert_whole(make_whole(torn, small, [True] * 3, parent), water, small, np.zeros(3))


def test_nonlocal_members_are_linked_by_the_shortest_ways():
    rng = np.random.default_rng(6)
    positions, group = 60 * rng.random((90, 3)), np.arange(90) % 2
    parent = spanning_tree(positions, np.eye(3) * 60, [True] * 3, group)
    vectors = positions[:, None] - positions
    vectors -= 60 * np.round(vectors / 60)
    table = np.linalg.norm(vectors, axis=2)
    total = 0.0
    for rows in (np.arange(0, 90, 2), np.arange(1, 90, 2)):
        inside, outside = [rows[0]], list(rows[1:])
        while outside:
            near = table[np.ix_(inside, outside)]
            total += near.min()
            inside.append(outside.pop(near.min(0).argmin()))
    assert table[np.arange(90), parent].sum() == pytest.approx(total, rel=1e-12)
    assert (parent[[0, 1]] == [0, 1]).all()


def test_graph_holds_whole_groups(molecules, cell):
    positions, group = molecules
    torn = broken(positions, cell, [True] * 3)
    graph = build_graph(np.ones(len(group)), torn, cell, [True] * 3, 2.0, group)
    assert_whole(graph.positions.numpy(), positions, cell, group)
    assert graph.group.tolist() == np.unique(group, return_inverse=True)[1].tolist()
    assert (graph.cell[0].numpy() == cell).all()
    for given in (
        build_graph(np.ones(len(group)), torn, cell, [True] * 3, 2.0),
        build_graph(np.ones(len(group)), torn, cell, [True] * 3, 2.0, np.zeros(len(group)), whole=False),
    ):
        assert (given.positions.numpy() == torn).all()
        assert not given.group.any()
    slab = build_graph(np.ones(len(group)), torn, cell, [True, False, True], 2.0)
    assert (slab.cell[0].numpy() == cell * [[1], [0], [1]]).all()
    assert not build_graph(np.ones(len(group)), torn, cell, [False] * 3, 2.0, group).cell.any()


def test_links_are_kept_while_they_are_beyond_doubt(molecules):
    positions, group = molecules
    cell, keep = CELLS["triclinic"], Unwrapper()
    rng, numbers, pbc = np.random.default_rng(8), np.ones(len(group), dtype=int), np.ones(3, bool)
    for step in range(20):
        positions = positions + 0.02 * rng.normal(size=positions.shape)
        cell = cell @ (np.eye(3) + 1e-3 * rng.normal(size=(3, 3)))
        assert_whole(
            keep(broken(positions, cell, pbc, step), cell, pbc, group, numbers), positions, cell, group
        )
    assert keep.builds == 1
    stretched = positions.copy()
    stretched[group == 12] *= 2.0
    keep(stretched, cell, pbc, group, numbers)
    assert keep.builds == 2, f"links grew by more than {GROWTH} Å"
    for changed in ({"numbers": 2 * numbers}, {"group": group % 3}, {"pbc": np.array([True, True, False])}):
        before = keep.builds
        arguments = {"lattice": cell, "pbc": pbc, "group": group, "numbers": numbers}
        keep(positions, **arguments)
        keep(positions, **(arguments | changed))
        assert keep.builds >= before + 1
    small = np.eye(3) * 2.4
    keep(positions, small, pbc, group, numbers)
    before = keep.builds
    keep(positions, small, pbc, group, numbers)
    assert keep.builds == before + 1, "a link of half a box is not beyond doubt"


FAR = needs_of_cutoff(3.0)._replace(nonlocal_kind="sphc")


def test_groups_are_numbered():
    assert grouping(FAR, [5, -1, 5, 9], 4, True, "auto", "here").group.tolist() == [1, 0, 1, 2]
    assert grouping(FAR, np.array([2.0, 1.0]), 2, True, "auto", "here").group.tolist() == [1, 0]
    assert grouping(FAR, None, 3, False, "auto", "here").group.tolist() == [0, 0, 0]
    assert grouping(FAR, [5, -1, 5], 3, True, "all", "here").group.tolist() == [0, 0, 0]
    with pytest.warns(So3kWarning, match="neither extensive nor separable.*which image"):
        announce(FAR, "all")
    for needs in (
        needs_of_cutoff(3.0),
        needs_of_cutoff(3.0)._replace(nonlocal_kind="efa"),
    ):  # to which one group is no other physics
        announce(needs, "all")


def test_images_matter_to_named_groups_in_a_box_alone():
    lattice = needs_of_cutoff(3.0)._replace(nonlocal_kind="efa")
    waves = lattice._replace(max_group_diameter=9.0)
    for needs in (FAR, waves):
        assert grouping(needs, [0, 1], 2, [True, False, False], "auto", "here").linked
        assert not grouping(needs, [0, 1], 2, False, "auto", "here").linked
        assert not grouping(needs, [0, 1], 2, True, "all", "here").linked
    for needs in (lattice, needs_of_cutoff(3.0)):
        assert not grouping(needs, [0, 1], 2, True, "auto", "here").linked
        assert not grouping(needs, [0, 1], 2, True, "auto", "here").group.any()
        assert not images_matter(needs, True, "here")


@pytest.mark.parametrize(
    ("array", "groups", "says"),
    [
        (None, "auto", r"here: is periodic.*atoms.arrays\['group'\].*groups: all"),
        ([1, 2], "auto", r"here: group has shape \(2,\), expected \(3,\)"),
        ([[1, 2, 3]], "auto", "shape"),
        ([1, 2.5, 3], "auto", "here: group of atom 1 is 2.5"),
        ([1, 2, np.nan], "auto", "here: group of atom 2 is nan"),
        ([1, 2, -np.inf], "auto", "here: group of atom 2 is -inf"),
        (["a", "b", "c"], "auto", "here: group contains 'a'"),
        ([True, False, True], "auto", "here: group contains 'True'"),
        ([1, 2, 3], "molecule", "groups = 'molecule' is unknown: choose auto or all"),
    ],
)
def test_unusable_groups_are_refused(array, groups, says):
    with pytest.raises(So3kError, match=says) as refusal:
        grouping(FAR, array, 3, True, groups, "here")
    assert "\n" not in str(refusal.value)


def test_large_groups_are_refused_to_sphc_alone():
    group = np.concatenate([np.full(40, -5), np.full(41, 7), np.arange(50, 60)])
    sphc, efa, local = (
        needs_of(So3krates(ModelConfig(nonlocal_=kind, features=12))) for kind in ("sphc", "efa", "none")
    )
    check_group_sizes(group, sphc, 41, "here")
    check_group_sizes(group, efa, 1, "here")
    check_group_sizes(group, local, 1, "here")
    says = r"here: group 7 has 41 atoms.*max_group = 40: .*1.6e\+03 pairs.* GiB.*raise max_group.*efa"
    with pytest.raises(So3kError, match=says):
        check_group_sizes(group, sphc, 40, "here")


def test_open_axes_are_refused_to_waves_of_the_lattice():
    reciprocal = So3krates(ModelConfig(nonlocal_="efa", efa_waves="reciprocal", features=12))
    check_axes(reciprocal.needs, [True] * 3, "here")
    check_axes(So3krates(ModelConfig(nonlocal_="efa", features=12)).needs, [False] * 3, "here")
    with pytest.raises(So3kError, match="here: has an open axis.*lebedev"):
        check_axes(reciprocal.needs, [True, True, False], "here")
