"""The kernels for GPUs, run on the CPU by the fake driver, against the plain layers in float64."""

import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_cuda import launches, load_fake_cuda
from nonlocal_models import NONLOCAL, group_graph, molecules
from small_models import CONFIGS, graph_of, lively
from so3lr_toys import so3lr_toy, waters

from so3k_md import ModelConfig, So3krates
from so3k_md.checkpoint import KERNEL_FILES
from so3k_md.errors import So3kError
from so3k_md.export import torchscript
from so3k_md.graph import Edges, Rows, to_device
from so3k_md.kernels.build import cached_programs, load_kernels
from so3k_md.kernels.choose import accelerated, choose, kernel_record
from so3k_md.kernels.parts import COMPILED
from so3k_md.model import set_dtype
from so3k_md.model.forces import evaluate
from so3k_md.needs import needs_of
from so3k_md.structure.build import build, fresh
from so3k_md.structure.structure import checked

TOLERANCE = 2e-5  # of forces, relative to their norm; products in split bfloat16
SHAPES = {
    **CONFIGS,
    "so3lr": replace(
        ModelConfig.preset("so3lr"), layers=2, zbl=False, electrostatics=False, dispersion=False
    ),
    # widths that fill no tile, in other numbers of heads
    "odd": replace(CONFIGS["so3krates-2022"], features=30, heads=5, degrees=(1, 3), chi_hidden=7, layers=3),
}


@pytest.fixture(scope="module", autouse=True)
def gpu(device, tmp_path_factory):
    """The pretended device with a driver and a compiler, and a cache of its own."""
    load_fake_cuda()
    assert load_kernels()
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    patch.setitem(COMPILED, device.type, COMPILED["cuda"])
    patch.setitem(KERNEL_FILES, device.type, KERNEL_FILES["cuda"])
    yield
    patch.undo()


def double_of(config: ModelConfig) -> So3krates:
    model = lively(set_dtype(So3krates(config, [1, 6, 8], seed=3), torch.float64))
    return model.eval().requires_grad_(False)


def on_gpu(model: So3krates, device: torch.device):
    """The same model in float32 with the kernels of the device."""
    single = set_dtype(copy.deepcopy(model), torch.float32).to(device)
    fast = accelerated(single, "on")
    assert fast.form == "kernels-cuda"
    return fast


def crowd(n: int = 24, side: float = 6.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atoms in a box smaller than two cutoffs, no two closer than 1.1 Å: numbers, positions, cell."""
    rng = np.random.default_rng(5)
    placed: list[np.ndarray] = []
    while len(placed) < n:
        point = rng.random(3) * side
        apart = np.array(placed).reshape(-1, 3) - point
        apart -= side * np.round(apart / side)
        if (np.linalg.norm(apart, axis=1) > 1.1).all():
            placed.append(point)
    return rng.choice([1, 6, 8], n), np.array(placed), np.diag([side] * 3)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.cpu().double() - expected).norm() / expected.norm())


def compare(name: str, model: So3krates, graph, device: torch.device) -> None:
    """Energies, forces and virial of the kernels and of the plain layers in float64."""
    before = launches()
    found = evaluate(on_gpu(model, device), to_device(graph, device), 1)
    assert launches() > before
    expected = evaluate(model, graph, 1)
    plain = evaluate(set_dtype(copy.deepcopy(model), torch.float32), graph, 1)
    rows = []
    for result in (found, plain):
        energies = error(result.outputs.energies, expected.outputs.energies)
        rows += [energies, error(result.forces, expected.forces), error(result.virial, expected.virial)]
    # with -s: energies, forces and virial of the kernels, then of the plain layers in float32
    print(name, " ".join(f"{row:.1e}" for row in rows))
    assert rows[0] < 1e-6
    assert max(rows[1:3]) < TOLERANCE


@pytest.mark.parametrize("name", SHAPES)
def test_local_layers(name, device):
    numbers, positions, cell = crowd()
    model = double_of(SHAPES[name])
    compare(name, model, graph_of(numbers, positions, needs_of(model).cutoff, cell), device)


@pytest.mark.parametrize("name", ["sphc-2022", "sphc-2024", "efa-lebedev"])
def test_nonlocal_layers(name, device):
    model = double_of(NONLOCAL[name])
    numbers, positions, group = molecules()
    compare(name, model, group_graph(numbers, positions, group, needs_of(model).cutoff, None), device)


def test_models_with_charges(device):
    model, atoms = so3lr_toy(), waters()
    structure = checked(
        needs_of(model), atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, where="the waters"
    )
    compare("charges", model, build(structure, fresh(needs_of(model), 6.0)), device)


class Case:
    """One layer, rows of centres and ghosts, and a linear function of the messages to the centres."""

    def __init__(self, config: ModelConfig, layer: int, n_atoms: int, n_ghosts: int):
        numbers, positions, _ = crowd(n_atoms, 1.35 * n_atoms ** (1 / 3) + 1.0)
        self.model, self.layer, self.n_atoms, self.n = double_of(config), layer, n_atoms, n_atoms - n_ghosts
        graph = graph_of(numbers, positions, needs_of(self.model).cutoff)
        own = graph.idx_i < self.n
        self.vectors, self.idx_i, self.idx_j = graph.vectors[own], graph.idx_i[own], graph.idx_j[own]
        generator = torch.Generator().manual_seed(1)

        def random(rows: int, columns: int) -> torch.Tensor:
            return torch.randn(rows, columns, generator=generator, dtype=torch.float64)

        self.x, self.chi = random(n_atoms, config.features), 0.3 * random(n_atoms, config.chi_width)
        if layer == 0 and config.chi_start != "neighbours":
            self.chi.zero_()
        self.by_dx, self.by_dchi = random(self.n, config.features), random(self.n, config.chi_width)

    def results(self, model, device) -> list[torch.Tensor]:
        """Messages, and derivatives of the function by features, SPHCs and positions, and the virial."""
        dtype = next(model.parameters()).dtype
        x, chi = (t.to(dtype).to(device).requires_grad_() for t in (self.x, self.chi))
        vectors = self.vectors.to(device, copy=True).requires_grad_()
        edges = model.representation.edges(vectors, self.idx_i.to(device), self.idx_j.to(device))
        none = vectors.detach()[:0]
        layer = getattr(model.representation.layers, str(self.layer))
        centres, sources = Rows(x[: self.n], chi[: self.n], none), Rows(x, chi, none)
        dx, dchi = layer.attend(centres, sources, Edges(*edges))
        total = (dx.double() * self.by_dx.to(device)).sum() + (dchi.double() * self.by_dchi.to(device)).sum()
        found = torch.autograd.grad(total, [x, chi, vectors], allow_unused=True, materialize_grads=True)
        *found, by_vector = (tensor.detach().cpu() for tensor in (dx, dchi, *found))
        # rows of one pair may share its derivative in any way
        forces = torch.zeros(self.n_atoms, 3, dtype=torch.float64)
        forces.index_add_(0, self.idx_i, by_vector).index_add_(0, self.idx_j, -by_vector)
        return [*found, forces, self.vectors.T @ by_vector]


@pytest.mark.parametrize("n_ghosts", [0, 12])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("name", ["so3krates-2022", "so3lr", "odd"])
def test_messages_and_derivatives_of_a_layer(name, layer, n_ghosts, device):
    case = Case(SHAPES[name], layer, 32, n_ghosts)
    expected = case.results(case.model, "cpu")
    for found, wanted in zip(case.results(on_gpu(case.model, device), device), expected, strict=True):
        if float(wanted.norm()) == 0.0:
            assert float(found.norm()) == 0.0
        else:
            assert error(found, wanted) < TOLERANCE


def test_results_do_not_depend_on_the_order_of_threads(device, monkeypatch):
    case = Case(SHAPES["so3lr"], 1, 24, 0)
    fast = on_gpu(case.model, device)
    first = case.results(fast, device)
    for seed in ("3", "7"):
        monkeypatch.setenv("SO3K_EMULATION_SEED", seed)
        assert all(torch.equal(a, b) for a, b in zip(first, case.results(fast, device), strict=True))


FAULTS = {
    "collective in a branch": (
        "alpha[row] = me.over_quad(sum);",
        "if (me.group < 4) alpha[row] = me.over_quad(sum);",
        "diverges at the collective",
    ),
    "memory never written": (
        "for (int f = me.lane; f < Shape::FEATURES; f += 32) row_of_x[f] = 0.0f;",
        "",
        None,
    ),
    "address of no whole pair": (
        "const int mine = column + 2 * me.quad;",
        "const int mine = column + 1;",
        "multiple of 8",
    ),
    "wrong row of a factor": ("active[s].set(row, half,", "active[s].set(1 - row, half,", None),
    "two threads add to one sum": (
        "+ 2 * me.quad + (first + n) % 2]",
        "+ 2 * (me.quad / 2) + (first + n) % 2]",
        None,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_emulation_finds_faults(fault, device, monkeypatch):
    """Each fault gets a shape of its own, because a process loads a shape once."""
    old, new, message = FAULTS[fault]
    monkeypatch.setenv("SO3K_EMULATION_OLD", old)
    monkeypatch.setenv("SO3K_EMULATION_NEW", new)
    hidden = 17 + 16 * list(FAULTS).index(fault)
    case = Case(replace(SHAPES["so3krates-2022"], chi_hidden=hidden), 1, 12, 0)
    fast = on_gpu(case.model, device)
    if message is not None:
        with pytest.raises(RuntimeError, match=message):
            case.results(fast, device)
        return
    found, expected = case.results(fast, device), case.results(case.model, "cpu")
    assert not all(error(a, b) < TOLERANCE for a, b in zip(found, expected, strict=True))


def test_pairs_in_another_order_give_no_forces(device):
    numbers, positions, cell = crowd()
    model = double_of(CONFIGS["euclidean-2024"])
    graph = graph_of(numbers, positions, needs_of(model).cutoff, cell)
    order = torch.arange(graph.idx_i.numel() - 1, -1, -1)
    turned = graph._replace(vectors=graph.vectors[order], idx_i=graph.idx_i[order], idx_j=graph.idx_j[order])
    found = evaluate(on_gpu(model, device), to_device(turned, device), 1)
    assert bool(found.forces.isnan().all())


def test_exported_files_have_the_form_for_gpus(device, tmp_path):
    model = set_dtype(double_of(CONFIGS["euclidean-2024"]), torch.float32)
    torchscript.save(model, tmp_path / "model.pt", "model")
    code = kernel_record(tmp_path / "model.pt", "cuda")
    fast = accelerated(copy.deepcopy(model).to(device), "on", code)
    assert fast.form == "kernels-cuda"
    numbers, positions, cell = crowd()
    graph = graph_of(numbers, positions, needs_of(model).cutoff, cell)
    found = evaluate(fast, to_device(graph, device), 1)
    assert error(found.forces, evaluate(double_of(model.config), graph, 1).forces) < TOLERANCE


def test_machine_code_is_kept_for_each_card(device):
    cached = list((Path(os.environ["XDG_CACHE_HOME"]) / "so3k-md" / "gpu").glob("near.cu-sm_90-*.cubin"))
    assert len(cached) >= len(SHAPES)
    assert cached_programs("sm_90")["near.cu"] == len(cached)
    assert cached_programs("sm_80") == {}


def test_float64_runs_plain_layers(device):
    model = double_of(CONFIGS["euclidean-2024"]).to(device)
    assert choose(model).form == "plain"
    assert "float32" in choose(model).reason
    with pytest.raises(So3kError, match="float32"):
        accelerated(model, "on")


def test_without_a_driver_the_reason_has_its_name():
    code = (
        "import torch; from so3k_md import load; from so3k_md.kernels.choose import choose; "
        "print(choose(load('ethanol-rmd17', dtype='float32'), device='cuda'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if torch.cuda.is_available():
        pytest.skip("this machine has a driver")
    assert "form='plain'" in done.stdout
    assert "libcuda.so.1 cannot be loaded: install the driver of the GPU" in done.stdout
