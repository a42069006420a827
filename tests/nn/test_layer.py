"""One layer against the published equations, written out atom by atom and pair by pair."""

import math
from dataclasses import replace

import numpy as np
import torch
from small_models import CONFIGS, REFERENCE, attend, graph_of, update

from so3k_md import ModelConfig, So3krates
from so3k_md.model import set_dtype
from so3k_md.needs import needs_of
from so3k_md.nn.spherical import coupling
from so3k_md.structure.build import build_graph

EXACT = replace(ModelConfig.preset("so3krates-2022"), layers=1, norm_eps=0.0)
SIGMA = torch.nn.functional.silu


def mlp(module, x):
    hidden = SIGMA(x @ module.hidden.weight + module.hidden.bias)
    return hidden @ module.out.weight + module.out.bias


def degree_slices(degrees):
    ends = np.cumsum([2 * l + 1 for l in degrees])
    return [slice(end - 2 * l - 1, end) for l, end in zip(degrees, ends, strict=True)]


def heads_of(linear, x):
    width = x.shape[-1] // linear.heads
    parts = [x[h * width : (h + 1) * width] @ linear.weight[h] for h in range(linear.heads)]
    return torch.cat(parts) + (0 if linear.bias is None else linear.bias)


def invariants(config, chi):
    parts = [chi[part] for part in degree_slices(config.degrees)]
    if config.chi_invariant == "norm":
        return torch.stack([(p.pow(2).sum() + config.norm_eps**2).sqrt() - config.norm_eps for p in parts])
    return torch.stack([p.pow(2).sum() / math.sqrt(len(p)) for p in parts])


def layer_by_hand(config, layer, x, chi, edges):
    """x', χ' of a layer by loops over pairs, heads and degrees (Frank et al. 2022; 2024)."""
    features, slices = config.features, degree_slices(config.degrees)
    new_x, new_chi = x.clone(), chi.clone()
    for p in range(len(edges.idx_i)):
        i, j = int(edges.idx_i[p]), int(edges.idx_j[p])
        distance = invariants(config, chi[i] - chi[j])
        feature, geometric = layer.feature_attention, layer.geometric_attention
        w = mlp(layer.feature_filter.radial, edges.rbf[p]) + mlp(layer.feature_filter.spherical, distance)
        q, k = heads_of(feature.attention.query, x[i]), heads_of(feature.attention.key, x[j])
        v = heads_of(feature.value, x[j])
        width = features // config.heads
        for h in range(config.heads):
            part = slice(h * width, (h + 1) * width)
            alpha = edges.cut[p] * (q[part] * w[part] * k[part]).sum() / math.sqrt(width)
            new_x[i, part] += alpha * v[part]
        w = mlp(layer.geometric_filter.radial, edges.rbf[p]) + mlp(layer.geometric_filter.spherical, distance)
        q, k = heads_of(geometric.attention.query, x[i]), heads_of(geometric.attention.key, x[j])
        width = features // len(config.degrees)
        for h, orders in enumerate(slices):
            part = slice(h * width, (h + 1) * width)
            alpha = edges.cut[p] * (q[part] * w[part] * k[part]).sum() / math.sqrt(width)
            new_chi[i, orders] += alpha * edges.ylm[p, orders]
    return exchange_by_hand(config, layer.interaction, new_x, new_chi)


def exchange_by_hand(config, block, x, chi):
    n, slices = len(config.degrees), degree_slices(config.degrees)
    out_x, out_chi = [], []
    for atom in range(len(x)):
        y = torch.cat([x[atom], invariants(config, chi[atom])]) @ block.linear.weight + block.linear.bias
        if config.interaction == "linear":
            a, b = y[: config.features], y[config.features :]
            out_x.append(x[atom] + a)
            out_chi.append(torch.cat([(1 + b[h]) * chi[atom, part] for h, part in enumerate(slices)]))
            continue
        a1, a2, b1, b2 = torch.split(y, [config.features, config.features, n, n])
        mixed = torch.zeros_like(chi[atom])
        for p1, l1 in enumerate(config.degrees):
            for p2, l2 in enumerate(config.degrees[p1 + 1 :], p1 + 1):
                for p3, l3 in enumerate(config.degrees):
                    if abs(l1 - l2) <= l3 <= l1 + l2 and (l1 + l2 + l3) % 2 == 0:
                        tensor = torch.from_numpy(coupling(l1, l2, l3))
                        product = torch.einsum(
                            "abc,a,b->c", tensor, chi[atom, slices[p1]], chi[atom, slices[p2]]
                        )
                        mixed[slices[p3]] += block.mix.k[p3, p1, p2] * product
        a3 = invariants(config, mixed) @ block.mixed_linear.weight + block.mixed_linear.bias
        out_x.append((x[atom] + a1 + a2 * a3) / math.sqrt(3))
        parts = [chi[atom, part] * (1 + b1[h]) + b2[h] * mixed[part] for h, part in enumerate(slices)]
        out_chi.append(torch.cat(parts))
    return torch.stack(out_x), torch.stack(out_chi)


def test_a_layer_is_its_published_equations(cluster):
    numbers, positions = cluster
    for name in ("so3krates-2022", "euclidean-2024"):
        config = CONFIGS[name]
        model = set_dtype(So3krates(config, [1, 6, 8], seed=2), torch.float64)
        graph = graph_of(numbers, positions, config.cutoff)
        edges = model.representation.edges(graph.vectors, graph.idx_i, graph.idx_j)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(len(numbers), config.features, dtype=torch.float64, generator=generator)
        chi = torch.randn(len(numbers), needs_of(model).chi_width, dtype=torch.float64, generator=generator)
        with torch.no_grad():
            dx, dchi = attend(model, 1, x, chi, x, chi, edges)
            got = update(model, 1, x, chi, dx, dchi)
            expected = layer_by_hand(config, model.representation.layers[1], x, chi, edges)
        for a, b in zip(got, expected, strict=True):
            assert torch.allclose(a, b, rtol=1e-11, atol=1e-11), name


def test_geometry_follows_the_convention_of_the_preset(cluster):
    numbers, positions = cluster
    for name, sign in (("so3krates-2022", -1.0), ("euclidean-2024", 1.0)):
        config = CONFIGS[name]
        model = set_dtype(So3krates(config, [1, 6, 8]), torch.float64)
        graph = graph_of(numbers, positions, config.cutoff)
        edges = model.representation.edges(graph.vectors, graph.idx_i, graph.idx_j)
        r = torch.linalg.vector_norm(graph.vectors, dim=1)
        start = 0 if config.degrees[0] == 1 else 1
        expected = sign * math.sqrt(3 / (4 * math.pi)) * graph.vectors[:, [1, 2, 0]] / r[:, None]
        assert torch.allclose(edges.ylm[:, start : start + 3], expected, rtol=0, atol=1e-13)
        beyond = edges.rbf / edges.cut[:, None] if config.damp_rbf else edges.rbf
        assert torch.allclose(beyond, model.representation.geometry.radial_basis(r), rtol=1e-9, atol=1e-12)


def test_first_sphcs_of_a_cumulene_have_the_known_spread():
    """C9H4 of the EFA repository (MIT), frame 0; figures of our own evaluation of the authors' formula."""
    data = np.load(REFERENCE / "cumulene_efa_frame0.npz")
    model = set_dtype(So3krates(EXACT), torch.float64)
    graph = build_graph(data["z"], data["R"], None, np.zeros(3, bool), 5.0)
    edges = model.representation.edges(graph.vectors, graph.idx_i, graph.idx_j)
    chi = model.representation.initial_chi(edges, 13)
    norms = torch.linalg.vector_norm(chi, dim=1)
    distances = torch.cdist(chi, chi)[~torch.eye(13, dtype=torch.bool)]
    assert abs(float(norms.min()) - 0.580) < 6e-4
    assert abs(float(norms.max()) - 0.765) < 6e-4
    assert abs(float(distances.min()) - 0.009) < 6e-4
    assert abs(float(distances.max()) - 1.183) < 6e-4
    assert abs(float(distances.mean()) - 0.709) < 6e-4
