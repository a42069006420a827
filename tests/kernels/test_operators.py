"""The operators by device: their shapes without memory, their autograd node, and their threads."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from nonlocal_models import NONLOCAL
from small_models import CONFIGS, lively
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from so3k_md import ModelConfig, So3krates
from so3k_md.kernels.build import load_kernels, schemas
from so3k_md.kernels.parts import COMPILED
from so3k_md.model.forces import evaluate
from so3k_md.needs import needs_of
from so3k_md.structure.build import build, fresh
from so3k_md.structure.structure import checked

MODELS = {
    "2022": CONFIGS["so3krates-2022"],
    "so3lr": replace(
        ModelConfig.preset("so3lr"),
        features=32,
        layers=2,
        n_rbf=8,
        radial_hidden=16,
        chi_hidden=8,
        cutoff=4.0,
    ),
    "sphc": NONLOCAL["sphc-2022"],
}
BY_DEVICE = {"attend_forward", "attend_backward", "sphc_attend_forward", "sphc_attend_backward"}
BY_DEVICE |= {"update_forward", "update_backward", "cutoff_forward", "cutoff_backward"}
BY_DEVICE |= {"heads_forward", "heads_backward", "long_pairs", "tally", "wave_read"}


class Recorder(TorchDispatchMode):
    """Keeps the calls of our operators, with their results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple, dict, Any]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function.namespace == "so3k":
            self.calls.append((function, args, kwargs or {}, result))
        return result


@pytest.fixture(params=MODELS)
def model(request) -> So3krates:
    assert load_kernels()
    return lively(So3krates(MODELS[request.param], [1, 6, 8], seed=3, parts=COMPILED["cpu"])).eval()


@pytest.fixture(scope="module")
def liquid() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """300 atoms in 100 molecules, numbers, positions and cell, so many that several threads have work."""
    rng = np.random.default_rng(0)
    places = (
        np.stack(np.meshgrid(*[np.arange(5)] * 2, np.arange(4), indexing="ij"), -1).reshape(-1, 1, 3) * 3.1
    )
    water = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    positions = (places + water).reshape(-1, 3) + rng.normal(0, 0.05, (300, 3))
    return np.tile([8, 1, 1], 100), positions, np.diag([15.5, 15.5, 12.4])


def graph_of_liquid(model: So3krates, liquid) -> Any:
    numbers, positions, cell = liquid
    needs = needs_of(model)
    groups = np.repeat(np.arange(5), 60) if needs.nonlocal_kind == "sphc" else None
    structure = checked(needs, numbers, positions, cell, [True] * 3, where="the liquid", group=groups)
    return build(structure, fresh(needs, 12.0))


@pytest.fixture
def threads() -> Iterator[Any]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def results(model: So3krates, graph: Any) -> list[torch.Tensor]:
    found = evaluate(model, graph, 1)
    return [found.outputs.energies.detach(), found.forces, found.virial]


def test_shapes_are_known_without_memory(model, liquid):
    with Recorder() as recorder:
        evaluate(model, graph_of_liquid(model, liquid), 1)
    seen = set()
    for function, args, kwargs, result in recorder.calls:
        name = function._schema.name.removeprefix("so3k::")
        if name not in BY_DEVICE:
            continue
        seen.add(name)
        on_meta = tree_map(lambda x: x.to("meta") if isinstance(x, torch.Tensor) else x, (args, kwargs))
        shapes = function(*on_meta[0], **on_meta[1])
        for shape, real in zip(*(x if isinstance(x, tuple) else (x,) for x in (shapes, result)), strict=True):
            assert shape.is_meta
            assert (shape.shape, shape.dtype) == (real.shape, real.dtype)
    assert {f"{name}_forward" for name in ("attend", "update", "cutoff", "heads")} <= seen
    assert {f"{name}_backward" for name in ("attend", "update", "cutoff", "heads")} <= seen
    if needs_of(model).nonlocal_kind == "sphc":
        assert {"sphc_attend_forward", "sphc_attend_backward"} <= seen
    if needs_of(model).has_long_range:
        assert {"long_pairs", "tally", "wave_read"} <= seen


def test_results_do_not_depend_on_the_number_of_threads(model, liquid, threads):
    """Up to the rounding of float32: sums of other parts are added in another order."""
    graph = graph_of_liquid(model, liquid)
    threads(1)
    one = results(model, graph)
    for number in (2, 3):
        threads(number)
        some, again = results(model, graph), results(model, graph)
        for a, b, c in zip(one, some, again, strict=True):
            assert (a - b).abs().max() <= 2e-5 * a.abs().max()
            assert torch.equal(b, c)  # the same number of threads, the same bits
    assert any(not torch.equal(a, b) for a, b in zip(one, some, strict=True))  # else one thread did all


def test_operators_name_their_arguments():
    assert load_kernels()
    names = {schema.split("(")[0] for schema in schemas()} - {"recall", "keep"}
    assert {"attend", "heads", "repulsion", "wave_read"} <= names
    for name in names:
        schema = getattr(torch.ops.so3k, name).default._schema
        assert all(argument.name for argument in schema.arguments)
        lists = [argument for argument in schema.arguments if "Tensor[]" in str(argument.type)]
        assert {argument.name for argument in lists} <= {"steps"}
