"""Optimisers: what Muon does to a matrix, to a stack of heads and to a table, and that its state is kept."""

import io
import math

import torch
from torch import Tensor

from so3k_md import ModelConfig, So3krates
from so3k_md.nn.linear import Linear
from so3k_md.train.config import TrainConfig
from so3k_md.train.muon import SIZE, Muon, Together, orthogonal
from so3k_md.train.optimizer import optimizer_of

CONFIG = ModelConfig(features=24, layers=1, n_rbf=8, radial_hidden=16, chi_hidden=8)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_all_singular_values_become_about_one():
    u, _, v = torch.linalg.svd(random(40, 60), full_matrices=False)
    for least in (0.02, 0.1, 1.0):
        given = torch.logspace(math.log10(least), 0, 40, dtype=torch.float64)
        given = given / given.norm()
        given[given < 0.01] = 0.01
        values = torch.linalg.svdvals(orthogonal(u @ torch.diag(given) @ v))
        assert values.min() > 0.72
        assert values.max() < 1.28


def test_a_move_keeps_the_singular_vectors_and_has_the_size_of_the_rate():
    for shape in ((6, 10), (10, 6), (2, 5, 5)):
        weight = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
        weight.grad = random(*shape)
        Muon([weight], lr=0.1, momentum=0.0).step()
        u, _, v = torch.linalg.svd(weight.grad, full_matrices=False)
        inner = -(u.mT @ weight.detach() @ v.mT)
        diagonal = torch.diagonal(inner, dim1=-2, dim2=-1)
        assert torch.allclose(inner, torch.diag_embed(diagonal), atol=1e-12)
        size = 0.1 * SIZE * max(shape[-2:]) ** 0.5
        assert bool(((diagonal > 0.3 * size) & (diagonal < 1.28 * size)).all())


def test_matrices_of_one_shape_do_not_mix():
    weights = [torch.nn.Parameter(random(8, 5) * k) for k in (1, 2)] + [torch.nn.Parameter(random(5, 8))]
    alone = [torch.nn.Parameter(weight.detach().clone()) for weight in weights]
    for k, (one, other) in enumerate(zip(weights, alone, strict=True)):
        one.grad = random(*one.shape) * (k + 1) + one.detach()
        other.grad = one.grad.clone()
        Muon([other], 0.1).step()
    Muon(weights, 0.1).step()
    for one, other in zip(weights, alone, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_maps_between_features_move_by_muon_and_the_rest_by_adamw():
    model = So3krates(CONFIG, [1, 8])
    optimizer = optimizer_of(model, TrainConfig(optimizer="muon"))
    assert isinstance(optimizer, Together)
    moved = {id(weight) for group in optimizer.parts[0].param_groups for weight in group["params"]}
    rest = {id(weight) for group in optimizer.parts[1].param_groups for weight in group["params"]}
    assert moved.isdisjoint(rest)
    assert moved | rest == {id(weight) for weight in model.parameters()}
    assert id(model.representation.embedding.weight) in rest
    assert id(model.representation.layers[0].feature_attention.value.weight) in moved
    assert id(model.energies.head.mlp.out.weight) in rest, "one column is no map between features"


def test_a_restored_state_continues_to_the_bit():
    def make() -> tuple[Linear, Together]:
        layer = Linear(6, 8, torch.Generator().manual_seed(0))
        return layer, optimizer_of(layer, TrainConfig(optimizer="muon", weight_decay=0.1))

    def steps(layer: Linear, optimizer: Together, n: int) -> None:
        x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
        for _ in range(n):
            optimizer.zero_grad()
            (layer(x) ** 2).mean().backward()
            optimizer.step()

    whole, cut = make(), make()
    steps(*whole, 6)
    steps(*cut, 3)
    buffer = io.BytesIO()
    torch.save([cut[0].state_dict(), cut[1].state_dict()], buffer)
    buffer.seek(0)
    weights, state = torch.load(buffer, weights_only=True)
    layer, optimizer = make()
    layer.load_state_dict(weights)
    optimizer.load_state_dict(state)
    steps(layer, optimizer, 3)
    assert torch.equal(layer.weight, whole[0].weight)
    assert torch.equal(layer.bias, whole[0].bias)
