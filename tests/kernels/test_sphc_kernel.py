"""The compiled kernel of attention in SPHC space against the stages that it stands for, and their adjoint."""

from dataclasses import replace

import pytest
import torch
from nonlocal_models import NONLOCAL, group_graph, molecules
from small_models import cutoff_of, lively, sphc_stage

from so3k_md import ModelConfig, So3krates
from so3k_md.kernels.build import load_kernels
from so3k_md.kernels.choose import accelerated
from so3k_md.kernels.parts import COMPILED
from so3k_md.model import set_dtype
from so3k_md.model.forces import evaluate
from so3k_md.model.weights import file_weights, load_weights
from so3k_md.needs import needs_of

CONFIGS = {
    "2022": NONLOCAL["sphc-2022"],
    "2024": NONLOCAL["sphc-2024"],
    # chunks and hidden layers that fill no register, the degree without a direction, the other invariants
    "odd": replace(
        NONLOCAL["sphc-2022"],
        degrees=(0, 2, 4),
        features=30,
        heads=5,
        chi_hidden=19,
        chi_invariant="squared",
        nonlocal_p=2,
        norm_eps=0.05,
        direction="to_centre",
        damp_rbf=False,
    ),
    "one degree": replace(NONLOCAL["sphc-2024"], kappa=1.0, degrees=(1,)),
}
GROUP = torch.tensor([3] * 2 + [0] * 80 + [1] + [3] * 8 + [2] * 2)


def model_of(config: ModelConfig, dtype: torch.dtype = torch.float64) -> So3krates:
    return lively(set_dtype(So3krates(config, [1, 6, 8], seed=2), dtype)).eval()


def peak(values: torch.Tensor) -> float:
    return float(values.detach().abs().max())


@pytest.fixture(params=CONFIGS)
def both(request) -> tuple[So3krates, So3krates]:
    """A model as it is and with kernels, in float64."""
    assert load_kernels()
    model = model_of(CONFIGS[request.param])
    fast = So3krates(model.config, model.needs.elements, parts=COMPILED["cpu"])
    load_weights(set_dtype(fast, torch.float64), file_weights(model))
    return model, fast


def atoms_of(model: So3krates, n: int) -> list[torch.Tensor]:
    """Features, SPHCs and positions of n atoms, of which some are within the cutoff of each other."""
    generator = torch.Generator().manual_seed(1)
    x, chi, r = (
        torch.randn(n, width, generator=generator, dtype=torch.float64)
        for width in (needs_of(model).features, needs_of(model).chi_width, 3)
    )
    return [tensor.requires_grad_() for tensor in (x, 0.3 * chi, 4.0 * r)]


def test_messages_and_their_adjoint_are_those_of_the_stages(both):
    model, fast = both
    n = len(GROUP)
    leaves = atoms_of(model, n)
    groups = model.representation.reach.group_rows(GROUP, GROUP, torch.arange(n))
    pairs = sphc_stage("sphc_pairs", model, 1, *leaves, *leaves, groups, 0, n)
    assert len(pairs.r) > 2 * n
    assert 0 < int((pairs.r < cutoff_of(model)).sum()) < len(pairs.r)
    found, expected = (sphc_stage("sphc_attend", m, 1, *leaves, *leaves, groups, 0, n) for m in (fast, model))
    assert torch.allclose(found, expected, rtol=0, atol=1e-9 * peak(expected))
    derivative = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2)).double()
    for got, wanted in zip(
        *(torch.autograd.grad(m, leaves, derivative) for m in (found, expected)), strict=True
    ):
        assert peak(wanted) > 1e-4
        assert torch.allclose(got, wanted, rtol=0, atol=1e-7 * peak(wanted))


def test_centres_of_which_other_members_live_elsewhere(both):
    """As in LAMMPS: sources of other ranks follow the centres, and centres come in runs."""
    model, fast = both
    leaves = atoms_of(model, len(GROUP))
    whole = model.representation.reach.group_rows(GROUP, GROUP, torch.arange(len(GROUP)))
    expected = sphc_stage("sphc_attend", model, 1, *leaves, *leaves, whole, 0, len(GROUP))
    mine = torch.arange(0, len(GROUP), 2)
    order = torch.cat([mine, torch.arange(1, len(GROUP), 2)])
    rows = [leaf[order] for leaf in leaves]
    groups = fast.representation.reach.group_rows(GROUP[mine], GROUP[order], torch.arange(len(mine)))
    found = []
    for first, last in ((0, 17), (17, len(mine))):
        own = [row[: len(mine)] for row in rows]
        found.append(sphc_stage("sphc_attend", fast, 1, *own, *rows, groups, first, last))
    assert torch.allclose(torch.cat(found), expected[mine], rtol=0, atol=1e-9 * peak(expected))


def test_evaluation_needs_no_tiles_of_its_own(both):
    model, fast = both
    graph = group_graph(*molecules(), cutoff_of(model))
    expected, found = (evaluate(m, graph, 1) for m in (model, fast))
    assert model.by_layer
    assert not fast.by_layer
    largest = peak(expected.forces)
    assert torch.allclose(found.forces, expected.forces, rtol=0, atol=1e-7 * largest)
    assert torch.allclose(found.virial, expected.virial, rtol=0, atol=1e-6 * largest)


def test_float32_is_as_near_to_float64_as_the_stages_are():
    exact, single = (model_of(CONFIGS["2022"], dtype) for dtype in (torch.float64, torch.float32))
    graph = group_graph(*molecules(), cutoff_of(exact))
    reference = evaluate(exact, graph, 1).forces
    errors = [peak(evaluate(m, graph, 1).forces - reference) for m in (single, accelerated(single, "auto"))]
    assert errors[1] < 3 * errors[0] + 1e-6 * peak(reference)
