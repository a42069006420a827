"""The doors through which each law is sent, and how torch behaves in tests."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import CONFIGS, DOORS, lively
from torch import nn

from so3k_md import ModelConfig, So3krates, load
from so3k_md.export import torchscript
from so3k_md.kernels.choose import accelerated
from so3k_md.model import set_dtype

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

torch.set_num_threads(1)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    # the first calls of a scripted model are slow on a CPU otherwise
    torch.jit.set_fusion_strategy([("DYNAMIC", 0)])


@pytest.fixture(scope="session", params=CONFIGS)
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return CONFIGS[request.param]


@pytest.fixture(scope="session")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ModelConfig, str], nn.Module]:
    """A float64 model of a configuration, through a door: eager, scripted, exported or with kernels."""
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
            elif door == "kernels":
                made[config, door] = accelerated(model, "on")
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


@pytest.fixture
def module(monkeypatch):
    """A file of benchmarks/ as a module."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    loaded: list[str] = []

    def load(name: str):
        loaded.append(name)
        return __import__(name)

    yield load
    for name in loaded:
        sys.modules.pop(name, None)
