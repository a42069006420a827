"""Laws of the energy, each through every door: eager, scripted, exported."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import CONFIGS, SMALL, attend, cutoff_of, graph_of, lively, update

from so3k_md import ModelConfig, So3krates
from so3k_md.errors import So3kError
from so3k_md.graph import Graph, collate, no_long_range
from so3k_md.model import set_dtype
from so3k_md.model.forces import evaluate
from so3k_md.needs import needs_of

ROTATION = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
ROTATION *= np.linalg.det(ROTATION)


@pytest.mark.parametrize(
    ("preset", "count"),
    [("so3krates-2022", 715_435), ("euclidean-2024", 311_515), ("invariant-2024", 386_899)],
)
def test_presets_have_the_published_numbers_of_parameters(preset, count):
    model = So3krates(ModelConfig.preset(preset))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize(
    "operation", [ROTATION, -ROTATION, -np.eye(3)], ids=["rotation", "rotoreflection", "inversion"]
)
def test_rotations_and_reflections_turn_the_forces_and_keep_the_energy(model, cluster, operation):
    numbers, positions = cluster
    before = evaluate(model, graph_of(numbers, positions, cutoff_of(model)), 1)
    after = evaluate(model, graph_of(numbers, positions @ operation.T, cutoff_of(model)), 1)
    assert abs(float(after.energy - before.energy)) < 1e-10
    assert torch.allclose(after.forces, before.forces @ torch.tensor(operation.T), rtol=0, atol=1e-10)


def test_without_parity_the_mirror_image_differs(cluster):
    numbers, positions = cluster
    mirrored = positions * [1, 1, -1]
    for parity, equal in ((True, True), (False, False)):
        config = replace(CONFIGS["so3krates-2022"], parity=parity)
        model = lively(set_dtype(So3krates(config, [1, 6, 8], seed=1), torch.float64))
        energies = [
            float(evaluate(model, graph_of(numbers, r, cutoff_of(model)), 1).energy)
            for r in (positions, mirrored)
        ]
        assert (abs(energies[0] - energies[1]) < 1e-10) is equal


def test_translation_changes_nothing(model, cluster):
    numbers, positions = cluster
    before = evaluate(model, graph_of(numbers, positions, cutoff_of(model)), 1)
    after = evaluate(model, graph_of(numbers, positions + [3.0, -7.0, 11.0], cutoff_of(model)), 1)
    assert abs(float(after.energy - before.energy)) < 1e-10
    assert torch.allclose(after.forces, before.forces, rtol=0, atol=1e-10)


def test_permutation_of_atoms_permutes_energies_and_forces(model, cluster):
    numbers, positions = cluster
    order = np.random.default_rng(0).permutation(len(numbers))
    before = evaluate(model, graph_of(numbers, positions, cutoff_of(model)), 1)
    after = evaluate(model, graph_of(numbers[order], positions[order], cutoff_of(model)), 1)
    assert torch.allclose(after.outputs.energies, before.outputs.energies[order], rtol=0, atol=1e-10)
    assert torch.allclose(after.forces, before.forces[order], rtol=0, atol=1e-10)


def test_batch_of_different_sizes_equals_single_structures(model, cluster):
    numbers, positions = cluster
    parts = [slice(0, 12), slice(0, 5), slice(7, 8), slice(3, 12)]
    graphs = [graph_of(numbers[part], positions[part], cutoff_of(model)) for part in parts]
    batch = evaluate(model, collate(graphs), len(graphs))
    singles = [evaluate(model, graph, 1) for graph in graphs]
    energies = torch.cat([single.outputs.energies for single in singles])
    assert torch.allclose(batch.outputs.energies, energies, rtol=0, atol=1e-10)
    for name in ("energy", "forces", "virial"):
        expected = torch.cat([getattr(single, name) for single in singles])
        assert torch.allclose(getattr(batch, name), expected, rtol=0, atol=1e-10), name


def test_isolated_atom_has_an_energy_of_its_element_alone(model):
    far_apart = np.arange(3)[:, None] * [50.0, 0.0, 0.0]
    numbers = np.array([8, 1, 6])
    together = evaluate(model, graph_of(numbers, far_apart, cutoff_of(model)), 1)
    alone = [evaluate(model, graph_of(numbers[[k]], np.zeros((1, 3)), cutoff_of(model)), 1) for k in range(3)]
    assert torch.allclose(
        together.outputs.energies, torch.cat([one.outputs.energies for one in alone]), rtol=0, atol=1e-12
    )
    assert together.forces.abs().max() == 0
    assert torch.isfinite(together.outputs.energies).all()


def test_energy_of_distant_molecules_is_the_sum(model, cluster):
    numbers, positions = cluster
    one = evaluate(model, graph_of(numbers, positions, cutoff_of(model)), 1)
    both = graph_of(
        np.tile(numbers, 2), np.concatenate([positions, positions + [100.0, 0, 0]]), cutoff_of(model)
    )
    assert abs(float(evaluate(model, both, 1).energy - 2 * one.energy)) < 1e-9


def test_replicated_box_has_eight_times_the_energy(model, cluster):
    numbers, positions = cluster
    cell = np.array([[4.5, 0, 0], [0.7, 4.7, 0], [-0.4, 0.3, 5.6]])
    shifts = np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 3) @ cell
    many = (positions[None] + shifts[:, None]).reshape(-1, 3)
    one = evaluate(model, graph_of(numbers, positions, cutoff_of(model), cell), 1)
    eight = evaluate(model, graph_of(np.tile(numbers, 8), many, cutoff_of(model), 2 * cell), 1)
    assert abs(float(eight.energy - 8 * one.energy)) < 1e-8
    assert torch.allclose(eight.forces, one.forces.repeat(8, 1), rtol=0, atol=1e-10)


def test_energy_and_forces_are_continuous_where_neighbors_leave(model, cluster):
    """A lone atom leaves a cluster, its last neighbor included: nothing may jump."""
    numbers, positions = cluster
    direction = np.array([0.6, 0.48, 0.64])
    anchor = positions[np.argmax(positions @ direction)]
    jump = []
    for step in (1e-3, 1e-5):
        energies, forces = [], []
        for side in (-step, step):
            outside = anchor + (cutoff_of(model) + side) * direction
            result = evaluate(
                model,
                graph_of(np.append(numbers, 8), np.vstack([positions, outside]), cutoff_of(model)),
                1,
            )
            energies.append(float(result.energy))
            forces.append(result.forces)
        jump.append((abs(energies[1] - energies[0]), float((forces[1] - forces[0]).abs().max())))
    assert jump[0][0] < 1e-3
    assert jump[1][0] < 1e-8
    assert jump[1][1] < 0.05 * jump[0][1] + 1e-10


def test_stages_with_ghost_rows_equal_the_whole_call(model, cluster):
    """Two 'ranks' that own half of the atoms each and see the others as ghost rows, filled layer by layer."""
    numbers, positions = cluster
    graph = graph_of(numbers, positions, cutoff_of(model))
    whole = model(graph)
    n = len(numbers)
    owned = [torch.arange(0, n, 2), torch.arange(1, n, 2), torch.arange(0)]  # the third rank is empty
    rows = [
        torch.cat([mine, torch.tensor(sorted(set(range(n)) - set(mine.tolist())), dtype=torch.int64)])
        for mine in owned
    ]
    x, chi, edges = [], [], []
    shares = model.representation.shares(graph)
    for mine, row in zip(owned, rows, strict=True):
        local = torch.full((n,), -1).scatter(0, row, torch.arange(n))
        keep = torch.isin(graph.idx_i, mine)
        edges.append(
            model.representation.edges(
                graph.vectors[keep], local[graph.idx_i[keep]], local[graph.idx_j[keep]]
            )
        )
        x.append(model.representation.embed(graph.species[mine], shares))
        chi.append(model.representation.initial_chi(edges[-1], len(mine)))
    for k in range(needs_of(model).n_layers):
        all_x, all_chi = (torch.empty(n, part[0].shape[1], dtype=torch.float64) for part in (x, chi))
        for r, mine in enumerate(owned):
            all_x[mine], all_chi[mine] = x[r], chi[r]
        for r, row in enumerate(rows):
            dx, dchi = attend(model, k, x[r], chi[r], all_x[row], all_chi[row], edges[r])
            x[r], chi[r] = update(model, k, x[r], chi[r], dx, dchi)
    for r, mine in enumerate(owned):
        assert torch.allclose(
            model.energies.readout(x[r], graph.species[mine]), whole[mine], rtol=0, atol=1e-10
        )


def test_float32_parameters_still_give_float64_energies(config, cluster):
    numbers, positions = cluster
    models = [lively(So3krates(config, [1, 6, 8], seed=3)) for _ in range(2)]
    graph = graph_of(numbers, positions, config.cutoff)
    single, double = (evaluate(m, graph, 1) for m in (models[0], set_dtype(models[1], torch.float64)))
    assert single.outputs.energies.dtype == single.forces.dtype == torch.float64
    assert torch.allclose(single.forces, double.forces, rtol=0, atol=1e-3 * float(double.forces.abs().max()))


def test_atoms_at_one_place_give_finite_numbers(model):
    graph = Graph(
        torch.tensor([6, 1]),
        torch.zeros(2, 3, dtype=torch.float64),
        torch.tensor([0, 1]),
        torch.tensor([1, 0]),
        torch.tensor([0, 0]),
        torch.zeros(2, 3, dtype=torch.float64),
        torch.tensor([0, 0]),
        torch.zeros(1, 3, 3, dtype=torch.float64),
        no_long_range(torch.tensor([0, 0]), 1),
    )
    assert torch.isfinite(evaluate(model, graph, 1).forces).all()


def test_seed_decides_the_weights_and_the_global_generator_is_left_alone():
    config = CONFIGS["euclidean-2024"]
    state = torch.get_rng_state()
    first, same, other = (So3krates(config, seed=seed).representation.embedding.weight for seed in (4, 4, 5))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": 130}, ["features", "130", "heads"]),
        ({"features": 128}, ["features", "128", "degrees"]),
        ({"degrees": (1, 5)}, ["degrees", "5"]),
        ({"degrees": ()}, ["degrees"]),
        ({"cutoff": -1.0}, ["cutoff", "-1.0"]),
        ({"radial_basis": "bessel"}, ["radial_basis", "bessel", "physnet"]),
        ({"nonlocal_": "everything"}, ["model.nonlocal ", "everything", "none"]),
    ],
)
def test_impossible_configurations_are_refused_by_name_and_value(change, words):
    with pytest.raises(So3kError) as refusal:
        replace(ModelConfig.preset("so3krates-2022"), **change)
    assert all(word in str(refusal.value) for word in words)


@pytest.mark.parametrize("known", [(True, True), (True, False), (False, True), (False, False)])
def test_features_know_of_the_totals_that_the_model_was_made_for(known):
    config = replace(ModelConfig.preset("so3lr"), **SMALL, charge_embedding=known[0], spin_embedding=known[1])
    model = So3krates(config, [1, 8])
    species = torch.tensor([8, 1])
    neutral = model.representation.embed(species, torch.zeros(2, 2))
    for column, knows in enumerate(known):
        shares = torch.zeros(2, 2)
        shares[:, column] = 0.5
        assert bool((model.representation.embed(species, shares) != neutral).any()) is knows
