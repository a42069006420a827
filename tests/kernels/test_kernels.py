"""The compiled kernel against the layers that it stands for; the laws of the model run through it as well."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import CONFIGS, attend, cutoff_of, graph_of, lively

from so3k_md import ModelConfig, So3krates, load
from so3k_md.checkpoint import eager
from so3k_md.errors import So3kError
from so3k_md.export import torchscript
from so3k_md.export.contract import KERNEL_FILES
from so3k_md.kernels.build import load_kernels
from so3k_md.kernels.choose import accelerated, is_compiled, load_accelerated
from so3k_md.kernels.layer import near_weights
from so3k_md.kernels.parts import COMPILED
from so3k_md.kernels.table import CLOSEST, TOLERANCES, Tabulated
from so3k_md.model import set_dtype
from so3k_md.model.forces import evaluate
from so3k_md.needs import needs_of, with_needs

CELL = np.array([[4.1, 0.0, 0.0], [0.9, 4.6, 0.0], [-0.7, 0.5, 5.3]])  # smaller than two cutoffs
SO3LR = replace(
    ModelConfig.preset("so3lr"), features=32, layers=2, n_rbf=8, radial_hidden=16, chi_hidden=8, cutoff=4.0
)
# widths that fill no register, in other numbers of heads
ODD = replace(CONFIGS["so3krates-2022"], features=30, heads=5, degrees=(1, 3), chi_hidden=7, layers=3)


def model_of(config: ModelConfig, dtype: torch.dtype = torch.float64) -> So3krates:
    return lively(set_dtype(So3krates(config, [1, 6, 8], seed=3), dtype)).eval()


@pytest.fixture(params=[*CONFIGS, "so3lr", "odd"])
def pair(request):
    """A model as it is and with kernels, in float64."""
    load_kernels()
    config = {"so3lr": SO3LR, "odd": ODD}.get(request.param) or CONFIGS[request.param]
    model = model_of(config)
    return model, accelerated(model, "on")


@pytest.mark.parametrize("cell", [None, CELL], ids=["open", "images of itself"])
def test_energies_forces_and_virial_are_those_of_the_layers(pair, cluster, cell):
    numbers, positions = cluster
    model, fast = pair
    graph = graph_of(numbers, positions, cutoff_of(model), cell)
    expected, found = (evaluate(m, graph, 1) for m in (model, fast))
    largest = expected.forces.abs().max()
    assert largest > 0.1
    assert torch.allclose(
        found.outputs.energies, expected.outputs.energies, rtol=0, atol=1e-8 * float(largest)
    )
    assert torch.allclose(found.forces, expected.forces, rtol=0, atol=1e-7 * float(largest))
    assert torch.allclose(found.virial, expected.virial, rtol=0, atol=1e-6 * float(largest))


def test_forces_are_finite_differences(pair, cluster):
    numbers, positions = cluster
    fast = pair[1]
    forces = evaluate(fast, graph_of(numbers, positions, cutoff_of(fast)), 1).forces
    for atom, axis in ((0, 0), (5, 1), (11, 2)):
        energies = []
        for step in (-1e-4, 1e-4):
            moved = positions.copy()
            moved[atom, axis] += step
            energies.append(
                float(evaluate(fast, graph_of(numbers, moved, cutoff_of(fast)), 1).energy.detach())
            )
        derivative = (energies[1] - energies[0]) / 2e-4
        assert abs(derivative + float(forces[atom, axis])) < 1e-6 * float(1 + forces.abs().max())


def test_layers_of_parts_with_sources_elsewhere_make_up_the_whole(pair, cluster):
    """As in LAMMPS: some atoms are centres, the others sources without pairs of their own."""
    numbers, positions = cluster
    model, fast = pair
    graph = graph_of(numbers, positions, cutoff_of(model), CELL)
    n = len(numbers)
    x = model.representation.embed(graph.species, model.representation.shares(graph))
    chi = 0.3 * torch.randn(n, needs_of(model).chi_width, generator=torch.Generator().manual_seed(1)).double()
    whole = attend(
        model, 1, x, chi, x, chi, model.representation.edges(graph.vectors, graph.idx_i, graph.idx_j)
    )
    for mine in (torch.arange(0, 5), torch.arange(5, n)):
        rows = torch.cat([mine, torch.tensor([i for i in range(n) if i not in mine.tolist()])])
        local = torch.empty(n, dtype=torch.int64).scatter(0, rows, torch.arange(n))
        keep = torch.isin(graph.idx_i, mine)
        edges = fast.representation.edges(
            graph.vectors[keep], local[graph.idx_i[keep]], local[graph.idx_j[keep]]
        )
        parts = attend(fast, 1, x[mine], chi[mine], x[rows], chi[rows], edges)
        assert not edges.back.all()
        for part, all_rows in zip(parts, whole, strict=True):
            assert torch.allclose(part, all_rows[mine], rtol=0, atol=1e-8)


def test_an_atom_alone_has_no_message(pair):
    model, fast = pair
    graph = graph_of(np.array([6]), np.zeros((1, 3)), cutoff_of(model))
    expected, found = (evaluate(m, graph, 1) for m in (model, fast))
    assert torch.allclose(found.outputs.energies, expected.outputs.energies, rtol=0, atol=1e-12)
    assert found.forces.abs().max() == 0


@pytest.mark.parametrize("kind", ["sphc", "efa"])
def test_attention_beyond_the_cutoff_is_left_as_it_is(cluster, kind):
    numbers, positions = cluster
    model = model_of(replace(CONFIGS["so3krates-2022"], nonlocal_=kind))
    graph = graph_of(numbers, positions, cutoff_of(model))
    expected, found = (evaluate(m, graph, 1) for m in (model, accelerated(model, "on")))
    tolerance = 1e-7 * float(expected.forces.abs().max())
    assert torch.allclose(found.forces, expected.forces, rtol=0, atol=tolerance)


def test_float32_is_as_near_to_float64_as_the_layers_are(cluster):
    numbers, positions = cluster
    exact = model_of(SO3LR)
    single = model_of(SO3LR, torch.float32)
    graph = graph_of(numbers, positions, cutoff_of(exact), CELL)
    reference = evaluate(exact, graph, 1).forces
    errors = [
        float((evaluate(m, graph, 1).forces - reference).abs().max())
        for m in (single, accelerated(single, "auto"))
    ]
    assert errors[1] < 3 * errors[0] + 1e-6 * float(reference.abs().max())


class Curves(Tabulated):
    def function(self, n: int, r: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.sin(n * r), torch.exp(-r) * r], dim=1)

    def forward(self, tolerance: float) -> torch.Tensor:
        return self.table(3, 4.0, tolerance, torch.device("cpu"))


@pytest.mark.parametrize("door", ["eager", "scripted"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-7), (torch.float64, 1e-10)])
def test_table_follows_its_function(dtype, tolerance, door):
    """In values and derivatives, also where intervals meet, and again when TorchScript has optimised it."""
    curves = Curves() if door == "eager" else torch.jit.script(Curves())
    with torch.no_grad():
        tables = [curves(TOLERANCES[dtype]) for _ in range(3)]
        assert not torch.is_grad_enabled()
    assert all(torch.equal(table, tables[0]) for table in tables)
    table, width = tables[0].to(dtype), 4.0 / len(tables[0])
    r = torch.linspace(CLOSEST, 4.0 - 1e-9, 1001, dtype=torch.float64)
    interval = (r / width).to(torch.int64)
    t = (r / width - interval)[:, None]
    c = table[interval].double().unbind(1)
    value = sum(c[k] * t**k for k in range(6))
    derivative = sum(k * c[k] * t ** (k - 1) for k in range(1, 6)) / width
    wanted, wanted_derivative = torch.func.jvp(lambda r: Curves().function(3, r), (r,), (torch.ones_like(r),))
    assert (value - wanted).abs().max() < tolerance
    assert (derivative - wanted_derivative).abs().max() < 10 * tolerance
    assert (table[:-1].sum(1) - table[1:, 0]).abs().max() < tolerance


def test_exported_file_becomes_the_model_it_was(tmp_path):
    model = model_of(SO3LR)
    with torch.no_grad():  # digits that float32 has no room for
        model.representation.embedding.weight.add_(1e-12)
    with_needs(model, energy_shift=-3.5, singlets_only=True)
    torchscript.save(model, tmp_path / "model.pt", "test")
    copy = eager(load(tmp_path / "model.pt"))
    assert type(copy) is So3krates
    facts = needs_of(copy)
    assert (facts.energy_shift, facts.singlets_only, facts.elements) == (-3.5, True, [1, 6, 8])
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.nan_to_num(), copy.state_dict()[name].nan_to_num())


def test_kernels_serve_both_precisions():
    single, double = model_of(ODD, torch.float32), model_of(ODD)
    assert accelerated(single, "off") is single
    assert all(is_compiled(accelerated(model, "auto")) for model in (single, double))
    with pytest.raises(So3kError, match="choose auto, on or off"):
        accelerated(single, "fast")


@pytest.mark.parametrize("dtype", [None, "float32", "float64"])
def test_a_file_with_kernels_is_loaded_as_it_is(tmp_path, cluster, dtype):
    path = tmp_path / "model.pt"
    torchscript.save(model_of(SO3LR, torch.float32), path, "test")
    taken, made = load_accelerated(path, dtype=dtype), load_accelerated(path, dtype=dtype, kernels="off")
    assert is_compiled(taken)
    assert not is_compiled(made)
    forces = [evaluate(model, graph_of(*cluster, 4.0), 1).forces for model in (taken, made)]
    assert (forces[0] - forces[1]).abs().max() < 1e-4 * forces[1].abs().max()


def test_a_file_with_damaged_kernels_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    torchscript.save(model_of(SO3LR, torch.float32), path, "test")
    with zipfile.ZipFile(path) as archive:
        (record,) = (each for each in archive.infolist() if each.filename.endswith(KERNEL_FILES["cpu"]))
    content = bytearray(path.read_bytes())
    content[record.header_offset + 5000] ^= 255
    path.write_bytes(content)
    with pytest.raises(So3kError, match="model.pt is damaged"):
        load_accelerated(path)


ON_GPUS = "attend", "sphc_attend", "geometry", "update"  # with an adjoint
REFUSED = "cutoff", "heads", "repulsion"  # on GPUs; the plain parts run there


def test_every_operator_has_a_kernel_or_a_refusal_for_gpus():
    """Of operators with an adjoint both passes have one. No GPU is needed to ask torch."""
    assert load_kernels()
    passes = [f"{name}_{which}ward" for name in ON_GPUS + REFUSED for which in ("for", "back")]
    for name in ("long_pairs", "tally", "open_coulomb", "wave_sums", "wave_read", *passes):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"so3k::{name}", "CUDA"), name
    cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    q, r, cell = torch.zeros(1), torch.zeros(1, 3), torch.eye(3)
    with pytest.raises(RuntimeError, match="compiled kernels are for CPUs"):
        torch.ops.so3k.wave_sums.default.redispatch(cuda, q, r, cell, 1.0, 1.0, 1.0)


def test_first_layer_of_a_model_that_starts_from_zeros_has_no_spherical_part():
    fast = So3krates(SO3LR, [1, 6, 8], parts=COMPILED["cpu"])
    x = fast.representation.embedding.weight
    shapes = [near_weights(layer.constants(0, x)).out.shape for layer in fast.representation.layers]
    assert shapes == [(2, 0, 32), (2, 8, 32)]
