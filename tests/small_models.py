"""Small models and structures that the tests share."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from so3k_md import Graph, ModelConfig, So3krates
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
    model.head.scale.fill_(20.0)
    for z in model.elements:
        model.head.shift[z] = -10.0 * z
    return model


def graph_of(
    numbers: np.ndarray, positions: np.ndarray | Tensor, cutoff: float, cell: np.ndarray | None = None
) -> Graph:
    """The graph of one structure; periodic along all axes if a cell is given."""
    return build_graph(numbers, np.asarray(positions), cell, np.full(3, cell is not None), cutoff)


REFERENCE = Path(__file__).parent / "reference"
