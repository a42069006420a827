"""Laws of attention beyond the cutoff, each through every door: eager, scripted, exported.

The structure is a periodic box of molecules that are wider than the cutoff and touch each other.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from nonlocal_models import CELL, NONLOCAL, group_graph, molecules
from small_models import DOORS, cutoff_of, layer_of, lively, sphc_stage
from test_forces import derivative
from torch import nn

from so3k_md import So3krates
from so3k_md.export import torchscript
from so3k_md.graph import Graph, collate, no_long_range
from so3k_md.model import set_dtype
from so3k_md.model.forces import Evaluation, evaluate
from so3k_md.needs import needs_of

ROTATION = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
ROTATION *= np.linalg.det(ROTATION)
# Waves on a grid of directions are invariant up to its quadrature error, for 50 points 4e-7 of a kernel of 1.
GRID_ERROR = {"efa-lebedev": 1e-7}  # eV, eV/Å


@pytest.fixture(scope="module", params=sorted(NONLOCAL))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=DOORS)
def model(name: str, request: pytest.FixtureRequest, doors) -> nn.Module:
    return doors(NONLOCAL[name], request.param)


@pytest.fixture(scope="module")
def box() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return molecules()


def of(model: nn.Module, numbers, positions, group, cell=CELL) -> Evaluation:
    return evaluate(model, group_graph(numbers, positions, group, cutoff_of(model), cell), 1)


def fresh(name: str, **changes) -> So3krates:
    config = replace(NONLOCAL[name], **changes)
    return lively(set_dtype(So3krates(config, [1, 6, 8], seed=3), torch.float64))


def same(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-10) -> bool:
    return bool(torch.isfinite(a).all()) and float((a - b).abs().max()) < tolerance


def test_nonlocal_atoms_are_felt(model, box):
    """Else the laws below would say nothing of non-local attention."""
    derivatives = model.gradient(group_graph(*box, cutoff_of(model), CELL))
    assert derivatives.positions.abs().max() > 1e-3
    assert needs_of(model).nonlocal_kind == "efa" or not derivatives.cell.any()


@pytest.mark.parametrize(
    "operation", [ROTATION, -ROTATION, -np.eye(3)], ids=["turn", "turned mirror", "inversion"]
)
def test_rotations_and_reflections_turn_the_forces_and_keep_the_energy(name, model, box, operation):
    numbers, positions, group = box
    before = of(model, *box)
    after = of(model, numbers, positions @ operation.T, group, CELL @ operation.T)
    turn = torch.tensor(operation)
    tolerance = GRID_ERROR.get(name, 1e-10)
    assert same(after.outputs.energies, before.outputs.energies, tolerance)
    assert same(after.forces, before.forces @ turn.T, tolerance)
    assert same(after.virial, turn @ before.virial @ turn.T, 10 * tolerance)


def test_translation_and_the_choice_of_images_change_nothing(model, box):
    numbers, positions, group = box
    before = of(model, *box)
    images = np.random.default_rng(1).integers(-2, 3, size=(len(group), 3))
    for moved in (positions + [3.0, -7.0, 11.0], positions + images @ CELL):
        after = of(model, numbers, moved, group)
        assert same(after.outputs.energies, before.outputs.energies)
        assert same(after.forces, before.forces)
        assert same(after.virial, before.virial)


def test_permutation_of_atoms_and_names_of_groups_are_arbitrary(model, box):
    numbers, positions, group = box
    order = np.random.default_rng(0).permutation(len(numbers))
    before = of(model, *box)
    names = np.array([40, -3, 7_000_000_000, 12])
    after = of(model, numbers[order], positions[order], names[group][order])
    assert same(after.outputs.energies, before.outputs.energies[order])
    assert same(after.forces, before.forces[order])
    graph = group_graph(*box, cutoff_of(model), CELL)
    renumbered = graph._replace(group=torch.tensor([2, 0, 3, 1])[graph.group])
    assert same(evaluate(model, renumbered, 1).forces, before.forces)


def test_forces_are_minus_the_gradient(model, box):
    numbers, positions, group = box
    forces = of(model, *box).forces
    for atom, axis in ((0, 0), (7, 1), (12, 2), (15, 0)):

        def energy(step: float, atom: int = atom, axis: int = axis) -> float:
            moved = positions.copy()
            moved[atom, axis] += step
            return float(of(model, numbers, moved, group).energy)

        assert abs(derivative(energy) + float(forces[atom, axis])) < 1e-7


def test_virial_is_minus_the_derivative_by_strain(model, box):
    numbers, positions, group = box
    virial = of(model, *box).virial[0]
    for a, b in ((0, 0), (1, 2), (2, 0)):

        def energy(step: float, a: int = a, b: int = b) -> float:
            strain = np.eye(3)
            strain[a, b] += step
            return float(of(model, numbers, positions @ strain, group, CELL @ strain).energy)

        assert abs(derivative(energy) + float(virial[a, b])) < 1e-6


def test_nonlocal_forces_sum_to_zero_in_each_group(name, model, box):
    graph = group_graph(*box, cutoff_of(model), CELL)
    result, derivatives = evaluate(model, graph, 1), model.gradient(graph)
    assert same(result.forces.sum(0), torch.zeros(3))
    # waves of the lattice take the whole box for one group
    parts = graph.frame if name == "efa-reciprocal" else graph.group
    for part in parts.unique():
        assert same(derivatives.positions[parts == part].sum(0), torch.zeros(3))
    assert same(result.virial, result.virial.transpose(1, 2), GRID_ERROR.get(name, 1e-10))


def test_batch_of_unequal_groups_equals_single_structures(model, box):
    numbers, positions, group = box
    parts = [slice(0, 16), slice(13, 15), slice(15, 16), slice(3, 13)]
    cells = [CELL, CELL * 1.1, CELL.T + 1.0, CELL]
    graphs = [
        group_graph(numbers[part], positions[part], group[part], cutoff_of(model), cell)
        for part, cell in zip(parts, cells, strict=True)
    ]
    batch = evaluate(model, collate(graphs), len(graphs))
    singles = [evaluate(model, graph, 1) for graph in graphs]
    assert same(batch.outputs.energies, torch.cat([single.outputs.energies for single in singles]))
    for field in ("energy", "forces", "virial"):
        assert same(getattr(batch, field), torch.cat([getattr(single, field) for single in singles])), field


def test_atoms_alone_in_their_groups_are_alone(name, model):
    if name == "efa-reciprocal":
        pytest.skip("the whole box is one group")
    numbers, apart, cell = np.array([8, 1, 6]), np.arange(3)[:, None] * [7.0, 1.0, 0.0], 30.0 * np.eye(3)
    together = of(model, numbers, apart, np.arange(3), cell)
    alone = [of(model, numbers[[k]], apart[[k]], np.zeros(1), cell) for k in range(3)]
    assert same(together.outputs.energies, torch.cat([one.outputs.energies for one in alone]), 1e-12)
    assert same(together.forces, torch.zeros(3, 3), 1e-12)


def test_gradient_in_tiles_is_the_derivative_of_forward(model, box):
    """`gradient` makes non-local pairs anew tile by tile; training differentiates `forward` as a whole."""
    graph = group_graph(*box, cutoff_of(model), CELL)
    expected = evaluate(model, graph, 1, differentiable=True)
    layers = [layer_of(model, k) for k in range(needs_of(model).n_layers)]
    tiled = [layer for layer in layers if hasattr(layer, "tile")]
    usual = [layer.tile for layer in tiled]
    for tiles in (usual, [20] * len(tiled), [1] * len(tiled)):
        for layer, tile in zip(tiled, tiles, strict=True):
            layer.tile = tile
        got = evaluate(model, graph, 1)
        for layer, tile in zip(tiled, usual, strict=True):
            layer.tile = tile
        assert not got.outputs.energies.requires_grad
        assert same(got.outputs.energies, expected.outputs.energies.detach(), 1e-12)
        for field in ("forces", "virial"):
            assert same(getattr(got, field), getattr(expected, field).detach(), 1e-12), field


def test_harmonics_of_degree_zero_alone_have_a_gradient_too(box):
    """The invariant model attends with Y_00, which nothing can be differentiated by."""
    config = replace(NONLOCAL["sphc-2024"], degrees=(0,))
    model = lively(set_dtype(So3krates(config, [1, 6, 8], seed=3), torch.float64))
    graph = group_graph(*box, cutoff_of(model), CELL)
    expected = evaluate(model, graph, 1, differentiable=True)
    for through in (model, torchscript.script(model)):
        assert same(evaluate(through, graph, 1).forces, expected.forces.detach(), 1e-12)


def test_training_on_forces_has_the_right_derivative(name, box):
    """d Σ F² / dθ along a random direction of all weights, against finite differences."""
    model = fresh(name)
    graph = group_graph(*box, cutoff_of(model), CELL)
    parameters = list(model.parameters())
    starts = [parameter.detach().clone() for parameter in parameters]
    generator = torch.Generator().manual_seed(0)
    direction = [0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]

    def loss(step: float) -> torch.Tensor:
        with torch.no_grad():
            for p, start, d in zip(parameters, starts, direction, strict=True):
                p.copy_(start + step * d)
        return evaluate(model, graph, 1, differentiable=True).forces.pow(2).sum()

    found = torch.autograd.grad(loss(0.0), parameters, allow_unused=True)
    exact = sum(float((g * d).sum()) for g, d in zip(found, direction, strict=True) if g is not None)
    assert abs(derivative(lambda step: float(loss(step).detach())) - exact) < 1e-6 * max(1.0, abs(exact))


def test_float32_parameters_give_nearly_the_same(name, box):
    single = lively(So3krates(NONLOCAL[name], [1, 6, 8], seed=3))
    far_from_origin = box[1] + 500.0
    low, high = (of(model, box[0], far_from_origin, box[2]) for model in (single, fresh(name)))
    assert low.outputs.energies.dtype == low.forces.dtype == torch.float64
    assert same(low.forces, high.forces, 2e-4)


def test_atoms_at_one_place_give_finite_numbers(model):
    two = torch.zeros(2, 3, dtype=torch.float64)
    pair, atoms = torch.tensor([0, 1]), torch.zeros(2, dtype=torch.int64)
    cell = torch.from_numpy(CELL)[None]
    long = no_long_range(atoms, 1)
    graph = Graph(torch.tensor([6, 1]), two, pair, pair.flip(0), atoms, two, atoms, cell, long)
    assert torch.isfinite(evaluate(model, graph, 1).forces).all()


def sphc_count(model, positions, numbers, group):
    """Number of non-local pairs in the first layer."""
    graph = group_graph(numbers, positions, group, cutoff_of(model))
    edges = model.representation.edges(graph.vectors, graph.idx_i, graph.idx_j)
    x, chi = (
        model.representation.embed(graph.species, model.representation.shares(graph)),
        model.representation.initial_chi(edges, len(numbers)),
    )
    groups = model.representation.reach.group_rows(graph.group, graph.group, torch.arange(len(numbers)))
    rows = x, chi, graph.positions
    return len(sphc_stage("sphc_pairs", model, 0, *rows, *rows, groups, 0, len(numbers)).phi)


def test_forces_hold_where_a_pair_becomes_a_neighbor_in_sphc_space(box):
    """At φ_χ = 0: an atom moves along a line, and the number of non-local pairs changes on it."""
    numbers, positions, group = (array[:8] for array in box)
    model = fresh("sphc-2022")
    along = np.zeros((8, 3))
    along[6] = [0.6, -0.3, 0.74]

    def changed(t: float) -> bool:
        return sphc_count(model, positions + t * along, numbers, group) != start

    start = sphc_count(model, positions, numbers, group)
    low, high = 0.0, next(t for t in np.linspace(0.02, 0.6, 30) if changed(t))
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if changed(middle) else (middle, high)
    at = positions + high * along
    expected = -float((of(model, numbers, at, group, None).forces.numpy() * along).sum())
    found = derivative(lambda step: float(of(model, numbers, at + step * along, group, None).energy))
    assert abs(found - expected) < 1e-7


@pytest.mark.parametrize("which", ["sphc-2022", "sphc-2024"])
def test_nothing_jumps_where_a_far_pair_enters_the_local_cutoff(which, box):
    numbers, positions, group = (array[:8] for array in box)
    model = fresh(which)
    anchor, out = positions[4], np.array([0.6, 0.48, 0.64])
    jumps = []
    for step in (1e-3, 1e-5):
        results = []
        for side in (-step, step):
            moved = positions.copy()
            moved[7] = anchor + (cutoff_of(model) + side) * out
            results.append(of(model, numbers, moved, group, None))
        jumps.append(
            [
                float((getattr(results[0], field) - getattr(results[1], field)).abs().max())
                for field in ("energy", "forces")
            ]
        )
    assert jumps[1][0] < 0.02 * jumps[0][0]
    assert jumps[1][1] < 0.05 * jumps[0][1]
