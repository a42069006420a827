"""Neighbourhoods in SPHC space and their message: loops in numpy, known values, places to stumble at."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from nonlocal_models import NONLOCAL, molecules
from reference import sphc
from small_models import REFERENCE, cutoff_of, layer_of, sphc_stage

from so3k_md import ModelConfig, So3krates
from so3k_md.model import set_dtype
from so3k_md.needs import needs_of
from so3k_md.structure.build import build_graph

PUBLISHED = replace(ModelConfig.preset("so3krates-2022"), layers=1, norm_eps=0.0, nonlocal_="sphc")
PRESETS = ["sphc-2022", "sphc-2024"]


def model_of(config):
    return set_dtype(So3krates(config, [1, 6, 8], seed=2), torch.float64)


def rows(model, n, seed=0, spread=0.4):
    """Features and SPHCs that no structure would have."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, needs_of(model).features))
    chi = spread * rng.normal(size=(n, needs_of(model).chi_width))
    return torch.from_numpy(x), torch.from_numpy(chi)


def whole(model, group):
    return model.representation.reach.group_rows(group, group, torch.arange(len(group)))


def neighborhood(model, chi, r, group):
    """φ_χ of the first layer as the model sees it, (n, n)."""
    x = torch.zeros(len(chi), needs_of(model).features, dtype=torch.float64)
    groups = whole(model, torch.as_tensor(group))
    pairs = sphc_stage("sphc_pairs", model, 0, x, chi, r, x, chi, r, groups, 0, len(chi))
    phi = np.zeros((len(chi), len(chi)))
    phi[pairs.idx_i, pairs.idx_j] = pairs.phi.detach()
    return phi


def first_neighborhood(cutoff, positions, numbers, group):
    """φ_χ, χ and u of the published model at the start of its first layer."""
    model = model_of(replace(PUBLISHED, cutoff=cutoff))
    graph = build_graph(numbers, positions, None, np.zeros(3, bool), cutoff)
    edges = model.representation.edges(graph.vectors, graph.idx_i, graph.idx_j)
    chi = model.representation.initial_chi(edges, len(numbers))
    phi = neighborhood(model, chi, graph.positions, group)
    return phi, chi.numpy(), sphc.neighborhoods(chi.numpy(), group)[0]


def cumulene():
    data = np.load(REFERENCE / "cumulene_efa_frame0.npz")
    return data["z"], data["R"]


def test_neighborhoods_of_a_cumulene_have_the_known_spread():
    """C9H4 of the EFA repository (MIT), frame 0; our own evaluation of the authors' formula beforehand."""
    z, r = cumulene()
    phi, chi, u = first_neighborhood(5.0, r, z, np.zeros(13))
    pairs = ~np.eye(13, dtype=bool)
    distance = np.linalg.norm(r[:, None] - r[None], axis=2)
    d = np.linalg.norm(chi[:, None] - chi[None], axis=2)[pairs]
    expected = {
        (0.580, 0.765): np.linalg.norm(chi, axis=1),
        (0.009, 1.183): d,
        (0.627, 1.606): u[pairs],
    }
    for (low, high), values in expected.items():
        assert abs(values.min() - low) < 6e-4
        assert abs(values.max() - high) < 6e-4
    assert abs(d.mean() - 0.709) < 6e-4
    assert ((phi > 0).sum(), (phi > 0.5).sum()) == (80, 16)
    assert ((distance > 5).sum(), (phi[distance > 5] > 0).sum()) == (78, 36)
    assert abs(phi[distance > 5].max() - 0.434) < 6e-4
    assert abs(phi.sum() / 13 - 1.591) < 6e-4
    assert np.array_equal(phi > 0, u < 1)
    phi, _, _ = first_neighborhood(2.5, r, z, np.zeros(13))
    assert ((phi > 0).sum(), (phi > 0.5).sum()) == (84, 42)
    assert abs(phi[distance > 2.5].max() - 0.775) < 6e-4


def test_ungrouped_molecules_mix_at_any_distance_and_groups_keep_them_apart():
    z, r = cumulene()
    z, r = np.tile(z, 2), np.concatenate([r, r + [100.0, 0.0, 0.0]])
    same = np.kron(np.eye(2), np.ones((13, 13))) > 0
    alone = first_neighborhood(5.0, r[:13], z[:13], np.zeros(13))[0]
    mixed = first_neighborhood(5.0, r, z, np.zeros(26))[0]
    assert abs(mixed[~same].sum() / 2 - 32.97) < 6e-3
    assert abs(mixed[same].sum() / 2 - 22.55) < 6e-3
    assert abs(alone.sum() - 20.68) < 6e-3
    assert abs(mixed[~same].max() - 0.960) < 6e-4
    assert abs(np.abs(mixed[:13, :13] - alone).max() - 0.043) < 6e-4
    grouped = first_neighborhood(5.0, r, z, np.repeat([0, 1], 13))[0]
    assert not grouped[~same].any()
    assert np.allclose(grouped[:13, :13], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("preset", PRESETS)
def test_message_is_the_published_equation_within_groups(preset):
    _, positions, group = molecules()
    for kappa, p, temperature in ((1.0, 6, 1.0), (1.7, 4, 0.6)):
        config = replace(NONLOCAL[preset], kappa=kappa, nonlocal_p=p, temperature=temperature)
        model = model_of(config)
        x, chi = rows(model, len(group))
        r = torch.from_numpy(positions)

        def radial(length, model=model):
            at = torch.tensor([length])
            return model.representation.geometry.damped_basis(at)[0].numpy()

        def harmonics(unit, model=model):
            return model.representation.geometry.harmonics(torch.from_numpy(unit)[None])[0].numpy()

        for numbers in (group, np.zeros_like(group)):
            with torch.no_grad():
                groups = whole(model, torch.from_numpy(numbers))
                got = sphc_stage(
                    "sphc_attend", model, 1, x, chi, r, x, chi, r, groups, 0, len(numbers)
                ).numpy()
            layer = layer_of(model, 1)
            weights = {name: value.numpy() for name, value in layer.state_dict().items()}
            arrays = x.numpy(), chi.numpy(), positions, numbers
            expected = sphc.message(config, weights, *arrays, radial, harmonics)
            assert np.abs(expected).max() > 0.01
            assert np.abs(got - expected).max() < 1e-12


def test_groups_take_any_numbers_and_sources_in_any_order():
    _, positions, group = molecules()
    model = model_of(NONLOCAL["sphc-2022"])
    x, chi = rows(model, len(group))
    r, group = torch.from_numpy(positions), torch.from_numpy(group)
    n = len(group)
    expected = sphc_stage("sphc_attend", model, 1, x, chi, r, x, chi, r, whole(model, group), 0, n)
    strange = torch.tensor([7_000_000_000, -3, 12, 5])[group]
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    place = torch.empty(n, dtype=torch.int64).scatter(0, order, torch.arange(n))
    for centres in (torch.arange(n), torch.tensor([11, 3, 0, 12])):
        own = place[centres]
        groups = model.representation.reach.group_rows(strange[centres], strange[order], own)
        mine = x[centres], chi[centres], r[centres]
        got = sphc_stage(
            "sphc_attend", model, 1, *mine, x[order], chi[order], r[order], groups, 0, len(centres)
        )
        assert torch.allclose(got, expected[centres], rtol=0, atol=1e-13)


def test_tiles_join_to_the_whole_message():
    _, positions, group = molecules()
    model = model_of(NONLOCAL["sphc-2022"])
    x, chi = rows(model, len(group))
    r = torch.from_numpy(positions)
    groups = whole(model, torch.from_numpy(group))
    expected = sphc_stage("sphc_attend", model, 1, x, chi, r, x, chi, r, groups, 0, len(group))
    assert layer_of(model, 0).tiles(groups) == [0, len(group)]
    for tile in (1, 13, 40):
        layer_of(model, 0).tile = tile
        bounds = layer_of(model, 0).tiles(groups)
        pairs = [int(groups.size[a:b].sum()) for a, b in zip(bounds, bounds[1:], strict=False)]
        assert bounds[0] == 0
        assert bounds[-1] == len(group)
        assert len(bounds) > 2
        assert max(pairs) < tile + int(groups.size.max())
        parts = [
            sphc_stage("sphc_attend", model, 1, x, chi, r, x, chi, r, groups, a, b)
            for a, b in zip(bounds, bounds[1:], strict=False)
        ]
        assert torch.allclose(torch.cat(parts), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("eps", [0.0, 1e-2])
@pytest.mark.parametrize("spread", [0.0, 1e-12, 1e4])
def test_equal_and_very_different_sphcs_give_finite_messages_and_derivatives(eps, spread):
    """All distances zero, hence u = n/(n − 1); or a softmax that is all on the farthest atom."""
    _, positions, group = molecules()
    model = model_of(replace(NONLOCAL["sphc-2022"], norm_eps=eps, kappa=1.0))
    x, chi = rows(model, len(group), spread=spread)
    leaves = [tensor.requires_grad_() for tensor in (x, chi, torch.from_numpy(positions))]
    x, chi, r = leaves
    groups = whole(model, torch.from_numpy(group))
    message = sphc_stage("sphc_attend", model, 1, x, chi, r, x, chi, r, groups, 0, len(group))
    if spread < 1:
        assert not message.any()
    else:
        assert message.abs().max() > 0
    for derivative in torch.autograd.grad(message.sum(), leaves, allow_unused=True):
        assert torch.isfinite(derivative).all()


def test_pairs_and_single_atoms_have_no_far_neighbors():
    model = model_of(replace(NONLOCAL["sphc-2022"], kappa=1.0))
    x, chi = rows(model, 5)
    r = torch.randn(5, 3, dtype=torch.float64)
    groups = whole(model, torch.tensor([0, 1, 1, 2, 2]))
    assert not sphc_stage("sphc_attend", model, 1, x, chi, r, x, chi, r, groups, 0, 5).any()


def test_nonlocal_filter_is_continuous_at_the_cutoff():
    """Local and non-local pairs differ in the filter; the non-local one is smooth where the basis ends."""
    for name in PRESETS:
        model = model_of(replace(NONLOCAL[name], kappa=3.0))
        x, chi = rows(model, 3)
        groups = whole(model, torch.zeros(3, dtype=torch.int64))
        messages = []
        for side in (-1e-7, 1e-7):
            r = torch.tensor([[0.0, 0, 0], [cutoff_of(model) + side, 0, 0], [0, 9.0, 0]], dtype=torch.float64)
            messages.append(sphc_stage("sphc_attend", model, 1, x, chi, r, x, chi, r, groups, 0, 3))
        assert messages[0].abs().max() > 1e-3
        assert torch.allclose(*messages, rtol=0, atol=1e-5 * float(messages[0].detach().abs().max()))
