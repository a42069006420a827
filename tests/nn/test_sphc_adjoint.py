"""The backward pass of non-local messages, partly written by hand, against autograd of the whole."""

import pytest
import torch
from nonlocal_models import NONLOCAL
from small_models import layer_of, lively, sphc_stage

from so3k_md import So3krates
from so3k_md.graph import Reach, Rows
from so3k_md.model import set_dtype
from so3k_md.needs import needs_of
from so3k_md.nn.sphc import known_tiles, pieces, products, products_adjoint

GROUP = torch.tensor([3] * 2 + [0] * 80 + [1] + [3] * 8 + [2] * 2)


def test_adjoint_of_the_products_is_that_of_autograd_and_adds_to_what_is_there():
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    idx_i, idx_j = torch.tensor([0, 0, 2, 3, 3]), torch.tensor([5, 1, 1, 0, 5])
    leaves = [tensor.requires_grad_() for tensor in (random(4, 6), random(7, 6), random(5, 6))]
    derivative = random(5, 2)
    alpha = products(*leaves, idx_i, idx_j, 2)
    expected = torch.autograd.grad(alpha, leaves, derivative)
    g_q, g_k = torch.ones(4, 6, dtype=torch.float64), torch.ones(7, 6, dtype=torch.float64)
    again, g_w = products_adjoint(*leaves, idx_i, idx_j, derivative, g_q, g_k)
    assert torch.allclose(again, alpha, rtol=0, atol=1e-14)
    for got, wanted in zip((g_q - 1, g_k - 1, g_w), expected, strict=True):
        assert torch.allclose(got, wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("preset", ["sphc-2022", "sphc-2024"])
@pytest.mark.parametrize("scripted", [False, True])
def test_adjoint_in_tiles_is_the_derivative_of_the_messages(preset, scripted):
    model = lively(set_dtype(So3krates(NONLOCAL[preset], [1, 6, 8], seed=2), torch.float64))
    generator = torch.Generator().manual_seed(1)
    shapes = [(len(GROUP), width) for width in (needs_of(model).features, needs_of(model).chi_width, 3)]
    x, chi, r = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    groups = model.representation.reach.group_rows(GROUP, GROUP, torch.arange(len(GROUP)))
    leaves = [tensor.requires_grad_() for tensor in (x, 0.3 * chi, 4.0 * r)]
    rows = leaves * 2
    pairs = sphc_stage("sphc_pairs", model, 1, *rows, groups, 0, len(GROUP))
    assert len(pieces(pairs.alpha)) > 2
    message = sphc_stage("sphc_attend", model, 1, *rows, groups, 0, len(GROUP))
    derivative = torch.randn(message.shape, generator=generator, dtype=torch.float64)
    expected = torch.autograd.grad(message, leaves, derivative)
    assert min(float(part.abs().max()) for part in expected) > 1e-4
    if scripted:
        model = torch.jit.script(model)
    layer = layer_of(model, 1)
    none = torch.zeros(0)
    unknown, known = ([], []), known_tiles(GROUP.tolist(), 600)
    for tile, tiles in ((layer.tile, unknown), (600, unknown), (layer.tile, known)):
        layer.tile = tile
        reach = Reach(groups, *tiles, none, none, [])
        found = layer.sphc_adjoint(Rows(*(tensor.detach() for tensor in leaves)), reach, derivative)
        for got, wanted in zip(found, expected, strict=True):
            assert torch.allclose(got, wanted, rtol=0, atol=1e-11)
