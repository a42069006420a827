"""Euclidean fast attention: kernels of every grid, reach, and its message against a sum over pairs."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from nonlocal_models import CELL, NONLOCAL, group_graph, molecules
from reference import efa

from so3k_md import So3krates
from so3k_md.errors import So3kError
from so3k_md.model import set_dtype
from so3k_md.needs import needs_of
from so3k_md.nn.waves import GRIDS, LebedevWaves, ReciprocalWaves

# Table S3 of arXiv:2412.08541 (its "6000" is the rule of 5810 points): points of the grid, b_max / π.
B_MAX = {
    50: 1, 86: 2, 110: 2.5, 146: 3, 194: 4, 230: 4.5, 266: 5, 302: 5.5, 350: 6.5, 434: 7.5, 590: 9, 770: 11,
    974: 12.5, 5810: 35,
}  # fmt: skip
REACH = 12.0  # Å
NO_CELL = torch.zeros(1, 3, 3, dtype=torch.float64)


def directions(n, seed=0):
    u = np.random.default_rng(seed).normal(size=(n, 3))
    return u / np.linalg.norm(u, axis=1, keepdims=True)


def kernel(waves, vectors, cell=NO_CELL):
    """Σ over the waves at a point and at points displaced from it by `vectors`, (n, frequencies)."""
    start = torch.tensor([[1.7, -0.4, 2.2]], dtype=torch.float64)
    points = torch.cat([start, start + torch.from_numpy(vectors)])
    at = waves(points, cell, torch.zeros(len(points), dtype=torch.int64))
    return (waves.signed(at[:1]) * at[1:]).sum(1).numpy()


def test_grids_are_the_published_table():
    assert {grid: b_max / math.pi for grid, (_, b_max) in GRIDS.items()} == pytest.approx(B_MAX)


@pytest.mark.parametrize("grid", sorted(B_MAX))
def test_waves_of_every_grid_make_the_sinc_kernel_within_reach_and_not_beyond(grid):
    waves = LebedevWaves(4, grid, REACH, 1.0)
    u = directions(20)
    distances = np.linspace(0.0, REACH, 16)
    vectors = (u[:, None] * distances[:, None]).reshape(-1, 3)
    exact = efa.sinc_kernel(4, B_MAX[grid] * math.pi, REACH)
    # 5e-6 for most; the table is a little generous to 350, 434, 590 and 770
    assert np.abs(kernel(waves, vectors) - exact(vectors)).max() < 2.5e-5
    beyond = 2 * REACH * u
    assert np.abs(kernel(waves, beyond) - exact(beyond)).max() > 4e-4


@pytest.mark.parametrize("grid", [50, 230, 974])
def test_diameter_is_bounded_from_above_by_little(grid):
    waves = LebedevWaves(4, grid, REACH, 1.0)
    rng = np.random.default_rng(4)
    for n in (1, 2, 2, 2, 5, 40):
        r = rng.normal(size=(n, 3)) * rng.uniform(0.1, 5.0, size=3) + 20.0
        truth = np.linalg.norm(r[:, None] - r[None], axis=2).max()
        points = torch.from_numpy(np.concatenate([r, 100 * r[:1]]))
        group = torch.tensor([0] * n + [1])
        bound = waves.diameter(waves.support(points, group, 2))
        assert truth <= float(bound[0]) <= 1.1 * truth + 1e-9
        assert abs(float(bound[1])) < 1e-9
    ends = directions(2000, seed=9)
    pairs = torch.arange(2000).repeat_interleave(2)
    points = torch.from_numpy(np.stack([ends, -ends], axis=1).reshape(-1, 3))
    assert waves.diameter(waves.support(points, pairs, 2000)).min() >= 2.0


def test_groups_beyond_the_reach_are_refused():
    config = NONLOCAL["efa-lebedev"]
    model = set_dtype(So3krates(config, [1, 6, 8]), torch.float64)
    assert needs_of(model).max_group_diameter == config.efa_reach
    for length, fits in ((0.9 * config.efa_reach, True), (1.01 * config.efa_reach, False)):
        graph = pair_graph(length)
        if fits:
            assert torch.isfinite(model(graph)).all()
        else:
            for call in (model, model.gradient):
                with pytest.raises(RuntimeError, match=r"\[so3k\].*A wide.*reach"):
                    call(graph)


def pair_graph(length):
    """Two atoms of one group without local neighbors."""
    r = length * np.stack([np.zeros(3), directions(1, seed=3)[0]])
    return group_graph(np.array([6, 1]), r, np.zeros(2), 3.0)


def messages(model, x, chi, r, group, cell):
    """(Δx, Δχ) by pairs, by waves, and by sums and their reading apart."""
    group = torch.from_numpy(group)
    n_groups = int(group.max()) + 1
    reach, layer = model.representation.reach, model.representation.layers[0].efa
    waves = reach.waves(torch.from_numpy(r), cell, torch.zeros(len(r), dtype=torch.int64))
    signed = reach.signed(waves)
    for pairwise in (256, 0):
        layer.pairwise = pairwise
        yield layer(x, chi, waves, signed, group, n_groups)
    yield layer.read(x, chi, signed, group, layer.sums(x, chi, waves, group, n_groups))


@pytest.mark.parametrize(
    ("name", "grid"), [("efa-lebedev", 50), ("efa-lebedev", 230), ("efa-reciprocal", 50)]
)
def test_message_is_the_sum_over_the_pairs_of_a_group(name, grid):
    config = replace(NONLOCAL[name], efa_grid=grid)
    model = set_dtype(So3krates(config, [1, 6, 8], seed=2), torch.float64)
    _, r, group = molecules()
    rng = np.random.default_rng(1)
    group = rng.permutation(group)  # rows of a group need not be neighbors
    x, chi = rng.normal(size=(len(r), config.features)), rng.normal(size=(len(r), needs_of(model).chi_width))
    n_frequencies = config.efa_features // 2
    if name == "efa-lebedev":
        kernels, error = efa.sinc_kernel(n_frequencies, B_MAX[grid] * math.pi, config.efa_reach), 3e-5
        r = 0.9 * r  # one group of all atoms is within reach, too
    else:
        kernels, error = efa.lattice_kernel(n_frequencies, config.efa_k_max, CELL), 1e-7
    cell = torch.from_numpy(CELL)[None]
    weights = {key: value.numpy() for key, value in model.representation.layers[0].efa.state_dict().items()}
    widths = config.degrees, config.efa_features, config.efa_values
    for numbers in (group, np.zeros_like(group)):
        expected = efa.message(*widths, weights, x, chi, r, numbers, kernels)
        for got in messages(model, torch.from_numpy(x), torch.from_numpy(chi), r, numbers, cell):
            for a, b in zip(got, expected, strict=True):
                assert np.abs(b).max() > 0.1
                assert np.abs(a.detach().numpy() - b).max() < error * np.abs(b).max()


def test_sums_of_parts_of_a_group_add_up():
    """What an all-reduce over ranks relies on."""
    config = NONLOCAL["efa-lebedev"]
    model = set_dtype(So3krates(config, [1, 6, 8], seed=2), torch.float64)
    _, r, group = molecules()
    r, group = torch.from_numpy(r), torch.from_numpy(group)
    x = torch.randn(len(r), config.features, dtype=torch.float64)
    chi = torch.randn(len(r), needs_of(model).chi_width, dtype=torch.float64)
    parts = [torch.arange(0, 5), torch.arange(5, len(r)), torch.arange(0)]

    def sums(rows):
        waves = model.representation.reach.waves(r[rows], NO_CELL, torch.zeros(len(rows), dtype=torch.int64))
        return model.representation.layers[1].efa.sums(x[rows], chi[rows], waves, group[rows], 4)

    def support(rows):
        return model.representation.reach.support(r[rows], group[rows], 4)

    every = torch.arange(len(r))
    assert torch.allclose(sum(sums(rows) for rows in parts), sums(every), rtol=0, atol=1e-12)
    largest = torch.stack([support(rows) for rows in parts]).amax(0)
    assert torch.allclose(largest, support(every), rtol=0, atol=1e-12)


def lattice_energy(model, cell, r, numbers):
    with torch.no_grad():
        return float(model(group_graph(numbers, r, np.zeros(len(r)), needs_of(model).cutoff, cell)).sum())


def test_waves_of_a_lattice_do_not_depend_on_the_cell_that_describes_it():
    model = set_dtype(So3krates(NONLOCAL["efa-reciprocal"], [1, 6, 8], seed=2), torch.float64)
    numbers, r, _ = molecules()
    one = lattice_energy(model, CELL, r, numbers)
    sheared, turned = [[1, 0, 0], [1, 1, 0], [-2, 1, 1]], [[0, 1, 0], [0, 0, 1], [-1, 0, 0]]
    for basis in (sheared, turned):
        assert abs(lattice_energy(model, np.array(basis) @ CELL, r, numbers) - one) < 1e-11


def test_kernel_of_a_large_cell_is_isotropic_and_one_at_zero():
    waves = ReciprocalWaves(3, 0, 0.0, 1.0)
    cell = 60.0 * torch.eye(3, dtype=torch.float64)[None]
    found = kernel(waves, np.concatenate([np.zeros((1, 3)), 6.0 * directions(10)]), cell)
    assert np.abs(found[0] - 1).max() < 1e-3
    assert np.ptp(found[1:], axis=0).max() < 2e-3


def test_waves_enter_and_leave_without_a_jump():
    """As the cell breathes, reciprocal vectors cross k_max."""
    model = set_dtype(So3krates(NONLOCAL["efa-reciprocal"], [1, 6, 8], seed=2), torch.float64)
    k_max = model.config.efa_k_max
    numbers, r, _ = molecules()
    edge = 2 * math.pi * 2 / k_max
    count, energy = [], []
    for side in (-1e-6, 1e-6):
        cell = np.diag([edge + side, 10.0, 11.0])
        count.append(len(model.representation.reach.efa_waves.lattice(torch.from_numpy(cell)[None])))
        energy.append(lattice_energy(model, cell, r, numbers))
    assert count[0] < count[1]
    assert abs(energy[1] - energy[0]) < 1e-5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"efa_grid": 51}, ["efa_grid", "51", "50", "5810"]),
        ({"efa_features": 7}, ["efa_features", "7", "even"]),
        ({"efa_values": 0}, ["efa_values", "0"]),
        ({"efa_reach": -2.0}, ["efa_reach", "-2.0"]),
        ({"efa_k_max": 0.0}, ["efa_k_max", "0.0"]),
        ({"efa_waves": "fourier"}, ["efa_waves", "fourier", "lebedev", "reciprocal"]),
        ({"kappa": 0.0}, ["kappa", "0.0"]),
        ({"nonlocal_p": 1}, ["nonlocal_p", "1"]),
        ({"temperature": -1.0}, ["temperature", "-1.0"]),
    ],
)
def test_impossible_settings_are_refused_by_name_and_value(change, words):
    with pytest.raises(So3kError) as refusal:
        replace(NONLOCAL["efa-lebedev"], **change)
    assert all(word in str(refusal.value) for word in words)
