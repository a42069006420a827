"""Heads, repulsion and cutoff functions of the kernels against the modules that they stand for."""

from dataclasses import replace

import pytest
import torch
from small_models import CONFIGS, graph_of, lively

from so3k_md import ModelConfig, So3krates
from so3k_md.kernels.build import load_kernels
from so3k_md.kernels.parts import COMPILED
from so3k_md.model import set_dtype
from so3k_md.nn.radial import CUTOFFS

SO3LR = replace(
    ModelConfig.preset("so3lr"), features=32, layers=2, n_rbf=8, radial_hidden=16, chi_hidden=8, cutoff=4.0
)
MODELS = {
    "2022": CONFIGS["so3krates-2022"],
    "so3lr": SO3LR,
    "repulsion alone": replace(
        SO3LR,
        electrostatics=False,
        dispersion=False,
        charge_embedding=False,
        spin_embedding=False,
        cutoff_function="cosine",
    ),
}


@pytest.fixture(params=MODELS)
def both(request) -> tuple[So3krates, So3krates]:
    """A model with plain parts and one with kernels, of the same weights."""
    assert load_kernels()
    config = MODELS[request.param]
    plain, fast = made(config), made(config, kernels=True)
    fast.load_state_dict(plain.state_dict(), strict=False)
    return plain, fast


def made(config: ModelConfig, kernels: bool = False) -> So3krates:
    options = {"parts": COMPILED["cpu"]} if kernels else {}
    return lively(set_dtype(So3krates(config, [1, 6, 8], seed=3, **options), torch.float64)).eval()


def features(model: So3krates) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    width = model.representation.embedding.weight.size(1)
    species = torch.tensor([1, 6, 8])[torch.randint(0, 3, (40,), generator=generator)]
    return torch.randn(40, width, generator=generator, dtype=torch.float64), species


def test_heads_and_their_adjoint_are_those_of_the_modules(both):
    found, gradients = [], []
    for model in both:
        x, species = features(model)
        x.requires_grad_()
        outputs = model.energies.heads(x, species)
        seeds = [torch.linspace(-1, 2, len(output)).to(output.dtype) for output in outputs]
        total = sum((output * seed).sum() for output, seed in zip(outputs, seeds, strict=True))
        gradients.append(torch.autograd.grad(total, x)[0])
        found.append(outputs)
    for a, b in zip(*found, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert torch.allclose(a, b, rtol=1e-13, atol=1e-13)
    assert torch.allclose(*gradients, rtol=1e-12, atol=1e-12)
    assert gradients[0].abs().max() > 1e-2


def test_heads_of_float32_give_float64_energies(both):
    model = set_dtype(both[1], torch.float32)
    x, species = features(model)
    energies, charges, _ = model.energies.heads(x.float(), species)
    assert energies.dtype == torch.float64
    assert charges.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_repulsion_and_its_adjoint_are_those_of_the_module(both, dtype):
    generator = torch.Generator().manual_seed(6)
    vectors = 2.5 * torch.rand(300, 3, generator=generator, dtype=torch.float64) - 1.0
    vectors[7] = 0.0  # two atoms at the same position
    i, j = (torch.randint(0, 40, (300,), generator=generator) for _ in range(2))
    seeds = torch.linspace(0.5, 1.5, 25, dtype=torch.float64)
    found = []
    for model in both:
        species = features(model)[1]
        leaf = vectors.clone().requires_grad_()
        like = torch.zeros(1, dtype=dtype if model is both[0] else torch.float64)
        energies = model.energies.close_repulsion(leaf, i % 25, j, species, like, 25)
        if energies.requires_grad:
            energies = energies, torch.autograd.grad((energies * seeds).sum(), leaf)[0]
        found.append(energies)
    if not isinstance(found[0], tuple):
        assert not any(energies.any() for energies in found)
        return
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    apart = torch.arange(300) != 7  # there the derivative has no direction
    for a, b in zip(*found, strict=True):
        rows = apart if len(a) == 300 else torch.arange(25) != int(i[7] % 25)
        assert torch.isfinite(b).all()
        assert (a - b)[rows].abs().max() < tolerance * a[rows].abs().max()
    assert found[0][0].abs().max() > 0.1


@pytest.mark.parametrize("name", CUTOFFS)
@pytest.mark.parametrize("p", [2, 6])
def test_cutoff_and_its_adjoint_are_those_of_the_module(name, p):
    assert load_kernels()
    module = CUTOFFS[name](4.0, p)
    r = torch.linspace(0.0, 4.5, 1001, dtype=torch.float64, requires_grad=True)
    found = [module(r), torch.ops.so3k.cutoff(r, 4.0, getattr(module, "p", 0))]
    seeds = torch.linspace(-1, 1, 1001, dtype=torch.float64)
    slopes = [torch.autograd.grad((values * seeds).sum(), r)[0] for values in found]
    assert (found[0] - found[1]).abs().max() < 1e-13
    assert (slopes[0] - slopes[1]).abs().max() < 1e-12


def test_charges_of_fragments_are_those_of_the_module(both):
    """Each fragment has its charge, and a shift without a charge is its own adjoint."""
    if both[0].energies.physics is None:
        return
    values = torch.randn(40, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    fragment, total = torch.arange(40) % 3, torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64)
    found = [model.energies.physics.shifted(values, total, fragment) for model in both]
    assert (found[0] - found[1]).abs().max() < 1e-14
    sums = torch.zeros(3, dtype=torch.float64).index_add(0, fragment, found[1])
    assert (sums - total).abs().max() < 1e-13


def test_tensors_of_the_gradient_are_those_of_its_named_tuple(both, cluster):
    numbers, positions = cluster
    for model in both:
        graph = graph_of(numbers, positions, 4.0)
        found, tensors = model.gradient(graph), model.gradient_tensors(graph)
        for a, b in zip([*found.outputs, *found[1:]], tensors, strict=True):
            assert torch.equal(a, b)
