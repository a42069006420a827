"""Small models and structures that all tests share, and the doors through which each law is sent."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from so3k_md import Graph, ModelConfig, So3krates, load
from so3k_md.export import torchscript
from so3k_md.model import set_dtype
from so3k_md.neighbors import build_graph

torch.set_num_threads(1)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    # the first calls of a scripted model are slow on a CPU otherwise
    torch.jit.set_fusion_strategy([("DYNAMIC", 0)])

DOORS = ["eager", "scripted", "exported"]
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


@pytest.fixture(scope="session", params=CONFIGS)
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return CONFIGS[request.param]


@pytest.fixture(scope="session")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ModelConfig, str], nn.Module]:
    """A float64 model of a configuration, through a door: eager, scripted or exported."""
    made: dict[tuple[ModelConfig, str], nn.Module] = {}

    def through(config: ModelConfig, door: str) -> nn.Module:
        if (config, door) not in made:
            model = lively(set_dtype(So3krates(config, [1, 6, 8], seed=3), torch.float64))
            made[config, "eager"] = model
            if door == "scripted":
                made[config, door] = torchscript.script(model)
            elif door == "exported":
                path = tmp_path_factory.mktemp("export") / "model.pt"
                torchscript.save(model, path, "test")
                made[config, door] = load(path)
        return made[config, door]

    return through


@pytest.fixture(params=DOORS)
def model(config: ModelConfig, request: pytest.FixtureRequest, doors: Callable) -> nn.Module:
    return doors(config, request.param)


@pytest.fixture(scope="session")
def cluster() -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers and positions (Å) of a disordered cluster without symmetry."""
    rng = np.random.default_rng(5)
    lattice = 1.5 * np.stack(np.meshgrid(*[np.arange(2)] * 2, np.arange(3)), -1).reshape(-1, 3)
    positions = lattice + rng.normal(scale=0.2, size=lattice.shape)
    return rng.choice([1, 6, 8], size=len(positions)), positions


def graph_of(
    numbers: np.ndarray, positions: np.ndarray | Tensor, cutoff: float, cell: np.ndarray | None = None
) -> Graph:
    """The graph of one structure; periodic along all axes if a cell is given."""
    return build_graph(numbers, np.asarray(positions), cell, np.full(3, cell is not None), cutoff)


REFERENCE = Path(__file__).parent / "reference"
