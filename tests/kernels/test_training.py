"""The kernels for training give the energies, forces and gradients of the plain layers."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_models import CONFIGS, lively
from torch import Tensor

from so3k_md import ModelConfig, So3krates
from so3k_md.data import Dataset, read_frames
from so3k_md.data.frames import Frame
from so3k_md.kernels.build import load_kernels
from so3k_md.kernels.training import TRAINING, training_parts
from so3k_md.model import set_dtype
from so3k_md.model.forces import evaluate
from so3k_md.model.parts import PLAIN, Parts

FRAMES = Path(__file__).parents[2] / "simulations" / "data" / "rmd17"
SHAPES = CONFIGS | {
    "degree-0": replace(CONFIGS["so3krates-2022"], degrees=(0, 1, 2), attention_bias=False),
    "gaussian": replace(
        CONFIGS["euclidean-2024"], radial_basis="gaussian", cutoff_function="physnet", damp_rbf=False
    ),
    "short": replace(CONFIGS["so3krates-2022"], cutoff=1.2),  # atoms without neighbors
}


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of labels of MD17, which the file holds too
        return read_frames(FRAMES / "rmd17_ethanol_train01.npz")[:3]


def trained(
    parts: Parts, config: ModelConfig, dtype: torch.dtype, frames: list[Frame]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Energies, forces, and the gradient of a loss of both by each parameter."""
    model = set_dtype(lively(So3krates(config, [1, 6, 8], seed=3, parts=parts)), dtype)
    if parts is TRAINING:
        model.representation.geometry.intervals[torch.float64] = 4096
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.data += 0.05 * torch.randn(weight.shape, generator=generator).to(dtype)
    graph, targets = Dataset(frames, config.cutoff, model).batch(range(len(frames)))
    found = evaluate(model, graph, len(frames), differentiable=True)
    loss = (found.forces - targets.forces).square().mean() + 1e-6 * found.energy.square().mean()
    loss.backward()
    return found.energy, found.forces, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_like_plain_layers(shape, dtype, tolerance, frames) -> None:
    assert load_kernels()
    energy, forces, gradients = trained(PLAIN, SHAPES[shape], torch.float64, frames)
    same_energy, same_forces, same_gradients = trained(TRAINING, SHAPES[shape], dtype, frames)
    torch.testing.assert_close(same_energy.double(), energy, rtol=tolerance, atol=0)
    assert (same_forces - forces).abs().max() <= tolerance * forces.abs().max()
    whole = torch.cat([gradient.flatten() for gradient in gradients.values()]).norm()
    off = [(same_gradients[name].double() - gradient).norm() for name, gradient in gradients.items()]
    assert torch.stack(off).norm() <= tolerance * whole


def test_the_choice_has_a_reason() -> None:
    config = CONFIGS["so3krates-2022"]
    assert training_parts(config, "cpu", torch.float32)[0] is TRAINING
    assert training_parts(config, "cuda", torch.float32) == (PLAIN, "the kernels for training are for CPUs")
    assert training_parts(config, "cpu", torch.float64)[0] is PLAIN
