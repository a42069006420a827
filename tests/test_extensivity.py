"""Energies add up within groups, and do not without them: why `groups: all` must be asked for by name."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from nonlocal_models import CELL, NONLOCAL, group_graph, molecules
from small_models import cutoff_of, lively
from torch import nn

from so3k_md import So3krates
from so3k_md.model import set_dtype
from so3k_md.model.forces import Evaluation, evaluate
from so3k_md.structure.build import build_graph

GROUPED = ["sphc-2022", "sphc-2024", "efa-lebedev"]


def model_of(name: str, **changes) -> nn.Module:
    config = replace(NONLOCAL[name], **changes)
    return lively(set_dtype(So3krates(config, [1, 6, 8], seed=3), torch.float64))


def one_group(model, numbers, positions, cell=None) -> Evaluation:
    """What `groups: all` does: one group, and the images of the atoms as they come."""
    graph = build_graph(numbers, positions, cell, np.full(3, cell is not None), cutoff_of(model))
    return evaluate(model, graph, 1)


def grouped(model, numbers, positions, group, cell=None) -> Evaluation:
    return evaluate(model, group_graph(numbers, positions, group, cutoff_of(model), cell), 1)


def two_molecules():
    """The same molecule twice, 100 Å apart and turned."""
    numbers, positions, group = (array[:8] for array in molecules())
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    far = positions @ turn.T + [100.0, 0.0, 0.0]
    return np.tile(numbers, 2), np.concatenate([positions, far]), np.repeat([0, 1], 8)


def replicated(numbers, positions, group):
    """The box twice along each axis, each copy of a molecule with a group of its own."""
    shifts = np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 3) @ CELL
    many = (positions[None] + shifts[:, None]).reshape(-1, 3)
    groups = (group[None] + 4 * np.arange(8)[:, None]).ravel()
    return np.tile(numbers, 8), many, groups


@pytest.mark.parametrize("name", GROUPED)
def test_distant_molecules_have_the_sum_of_their_energies_in_groups_only(name):
    model = model_of(name, efa_reach=150.0)
    numbers, positions, group = two_molecules()
    halves = [grouped(model, numbers[h], positions[h], group[h]) for h in (slice(0, 8), slice(8, 16))]
    total = sum(float(half.energy) for half in halves)
    both = grouped(model, numbers, positions, group)
    assert abs(float(both.energy) - total) < 1e-12 * abs(total)
    assert torch.allclose(both.forces, torch.cat([half.forces for half in halves]), rtol=0, atol=1e-12)
    assert abs(float(one_group(model, numbers, positions).energy) - total) > 1e-3


def test_ungrouped_molecules_are_beyond_the_reach_of_a_grid():
    numbers, positions, _ = two_molecules()
    with pytest.raises(RuntimeError, match="reach"):
        one_group(model_of("efa-lebedev"), numbers, positions)


@pytest.mark.parametrize("name", GROUPED)
def test_replicated_box_has_eight_times_the_energy_in_groups_only(name):
    model = model_of(name, efa_reach=60.0)
    box = molecules()
    many = replicated(*box)
    one, eight = grouped(model, *box, CELL), grouped(model, *many, 2 * CELL)
    assert abs(float(eight.energy - 8 * one.energy)) < 1e-12 * abs(8 * float(one.energy))
    assert torch.allclose(eight.forces, one.forces.repeat(8, 1), rtol=0, atol=1e-11)
    assert torch.allclose(eight.virial, 8 * one.virial, rtol=0, atol=1e-10)
    one, eight = one_group(model, *box[:2], CELL), one_group(model, *many[:2], 2 * CELL)
    assert abs(float(eight.energy - 8 * one.energy)) > 1e-3


@pytest.mark.parametrize("name", GROUPED)
def test_molecule_broken_over_the_boundary_is_whole_in_groups_only(name):
    model = model_of(name, efa_reach=60.0)
    numbers, positions, group = molecules()
    fractional = positions @ np.linalg.inv(CELL)
    broken = positions - np.floor(fractional) @ CELL
    assert not np.allclose(broken, positions)
    whole = grouped(model, numbers, positions, group, CELL)
    assert abs(float(grouped(model, numbers, broken, group, CELL).energy - whole.energy)) < 1e-11
    images = [one_group(model, numbers, r, CELL).energy for r in (positions, broken)]
    assert abs(float(images[1] - images[0])) > 1e-3


def test_waves_of_the_lattice_are_extensive_and_know_no_images():
    model = model_of("efa-reciprocal")
    numbers, positions, group = molecules()
    images = np.random.default_rng(1).integers(-2, 3, size=(len(numbers), 3))
    one = one_group(model, numbers, positions, CELL)
    moved = one_group(model, numbers, positions + images @ CELL, CELL)
    many = replicated(numbers, positions, group)
    eight = one_group(model, *many[:2], 2 * CELL)
    for a, b, n in ((moved, one, 1), (eight, one, 8)):
        assert abs(float(a.energy - n * b.energy)) < 1e-12 * abs(float(a.energy))
        assert torch.allclose(a.forces, b.forces.repeat(n, 1), rtol=0, atol=1e-11)
        assert torch.allclose(a.virial, n * b.virial, rtol=0, atol=1e-10)


def test_waves_of_the_lattice_take_the_whole_box_whatever_the_groups():
    """Within molecules they would reach each one's own images, which are others in a larger box."""
    model = model_of("efa-reciprocal")
    box = molecules()
    one, eight = grouped(model, *box, CELL), grouped(model, *replicated(*box), 2 * CELL)
    assert float(one.energy) == float(one_group(model, *box[:2], CELL).energy)
    assert abs(float(eight.energy - 8 * one.energy)) < 1e-12 * abs(float(eight.energy))
