"""Why the models of the cumulene have no degree 3: with it the two ends are no neighbors in SPHC space."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from small_models import cutoff_of, sphc_stage

from so3k_md import ModelConfig, So3krates
from so3k_md.model import set_dtype
from so3k_md.structure.build import build_graph

SCAN = Path(__file__).parents[2] / "simulations" / "data" / "cumulene" / "c9h4_gfn2_scan_public.npz"


def end_to_end(degrees: tuple[int, ...], theta: float) -> float:
    """φ_χ between the end carbons in the first layer of a model that has learned nothing."""
    scan = np.load(SCAN)
    config = replace(ModelConfig(), degrees=degrees, layers=1, cutoff=2.9, nonlocal_="sphc")
    model = set_dtype(So3krates(config, [1, 6]), torch.float64)
    positions = scan["R"][np.flatnonzero(scan["theta"] == theta)[0]]
    graph = build_graph(scan["z"], positions, None, np.zeros(3, bool), cutoff_of(model), np.zeros(13, int))
    with torch.no_grad():
        edges = model.representation.edges(graph.vectors, graph.idx_i, graph.idx_j)
        x, chi, r = (
            model.representation.embed(graph.species, model.representation.shares(graph)),
            model.representation.initial_chi(edges, 13),
            graph.positions,
        )
        groups = model.representation.reach.group_rows(graph.group, graph.group, torch.arange(13))
        pairs = sphc_stage("sphc_pairs", model, 0, x, chi, r, x, chi, r, groups, 0, 13)
    return float(pairs.phi[(pairs.idx_i == 0) & (pairs.idx_j == 8)].sum())


def test_odd_degrees_keep_the_ends_apart_and_even_ones_tell_their_torsion():
    assert all(end_to_end((1, 2, 3), theta) == 0.0 for theta in (0.0, 45.0, 90.0))
    phi = [end_to_end((1, 2, 4), theta) for theta in (0.0, 20.0, 45.0, 90.0)]
    assert np.allclose(phi, [0.862, 0.542, 0.121, 0.082], rtol=0, atol=0.002), phi
