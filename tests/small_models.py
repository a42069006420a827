"""Small models and structures that the tests share."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from so3k_md import Graph, ModelConfig, So3krates
from so3k_md.graph import Rows
from so3k_md.needs import needs_of
from so3k_md.structure.build import build_graph

DOORS = ["eager", "scripted", "exported", "kernels"]
SMALL = {"layers": 2, "n_rbf": 8, "radial_hidden": 16, "chi_hidden": 8, "cutoff": 4.0, "features": 24}
CONFIGS = {
    "so3krates-2022": replace(ModelConfig.preset("so3krates-2022"), **SMALL),
    "euclidean-2024": replace(ModelConfig.preset("euclidean-2024"), **SMALL),
    "invariant-2024": replace(ModelConfig.preset("invariant-2024"), **SMALL),
    "all-options": replace(
        ModelConfig.preset("so3krates-2022"),
        **SMALL
        | {
            "degrees": (1, 2, 3, 4),
            "radial_basis": "bernstein",
            "cutoff_function": "polynomial",
            "layer_norm": True,
            "chi_norm": True,
            "residual_mlp": True,
            "attention_scale": 0.1,
        },
    ),
}


def lively(model: So3krates) -> So3krates:
    """The same model with an energy head loud enough for errors to be seen, unlike for each element."""
    model.energies.head.scale.fill_(20.0)
    for z in needs_of(model).elements:
        model.energies.head.shift[z] = -10.0 * z
    return model


def graph_of(
    numbers: np.ndarray, positions: np.ndarray | Tensor, cutoff: float, cell: np.ndarray | None = None
) -> Graph:
    """The graph of one structure; periodic along all axes if a cell is given."""
    return build_graph(numbers, np.asarray(positions), cell, np.full(3, cell is not None), cutoff)


def cutoff_of(model: nn.Module) -> float:
    """The cutoff of a model, eager or exported, Å."""
    return needs_of(model).cutoff


def layer_of(model: nn.Module, k: int) -> nn.Module:
    """A layer of a model, eager or exported."""
    return getattr(model.representation.layers, str(k))


def rows_of(x: Tensor, chi: Tensor, r: Tensor | None = None) -> Rows:
    """Rows of atoms, whose positions local layers do not read."""
    return Rows(x, chi, x.new_zeros((0, 3), dtype=torch.float64) if r is None else r)


def attend(model: nn.Module, k: int, *rows_and_edges) -> tuple[Tensor, Tensor]:
    """Local messages of a layer: x, χ of the centres, the same of the sources, and the edges."""
    x, chi, x_src, chi_src, edges = rows_and_edges
    return layer_of(model, k).attend(rows_of(x, chi), rows_of(x_src, chi_src), edges)


def update(model: nn.Module, k: int, x: Tensor, chi: Tensor, dx: Tensor, dchi: Tensor) -> tuple[Tensor, ...]:
    """x and χ after a layer."""
    return tuple(layer_of(model, k).update(rows_of(x, chi), dx, dchi)[:2])


def sphc_stage(stage: str, model: nn.Module, k: int, *rows_and_tile):
    """A stage of attention within groups: x, χ, r of centres and of sources, groups, first, last."""
    centres, sources, tile = rows_and_tile[:3], rows_and_tile[3:6], rows_and_tile[6:]
    return getattr(layer_of(model, k), stage)(Rows(*centres), Rows(*sources), *tile)


REFERENCE = Path(__file__).parent / "reference"
