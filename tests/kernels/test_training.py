"""The kernels for training give the energies, forces and gradients of the plain layers."""

import csv
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from ase.build import molecule
from small_models import CONFIGS, lively
from torch import Tensor

from so3k_md import ModelConfig, So3krates
from so3k_md.checkpoint import read_checkpoint
from so3k_md.cli import main
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


def test_models_with_charges_in_boxes_of_unlike_size():
    """SO3LR's shape; images of an atom are its neighbors, and frames differ in size and boundary."""
    config = replace(
        ModelConfig.preset("so3lr"),
        features=32,
        layers=2,
        n_rbf=8,
        radial_hidden=16,
        chi_hidden=8,
        n_species=20,
    )
    rng = np.random.default_rng(3)
    made = []
    for k, name in enumerate(("H2O", "CH3CH2OH", "H2O")):
        atoms = molecule(name)
        if k != 1:
            atoms.set_cell(np.eye(3) * 3.4 + 0.2 * rng.normal(size=(3, 3)))
            atoms.pbc = True
        atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
        cell = np.array(atoms.cell) if atoms.pbc.any() else None
        forces = rng.normal(size=atoms.positions.shape)
        made.append(Frame(atoms.numbers, atoms.positions, cell, atoms.pbc, -3.0, forces, None, k, "made"))
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-4)):
        energy, forces, gradients = trained(PLAIN, config, torch.float64, made)
        same_energy, same_forces, same_gradients = trained(TRAINING, config, dtype, made)
        torch.testing.assert_close(same_energy.double(), energy, rtol=tolerance, atol=0)
        assert (same_forces - forces).abs().max() <= tolerance * forces.abs().max()
        whole = torch.cat([gradient.flatten() for gradient in gradients.values()]).norm()
        off = [(same_gradients[name].double() - gradient).norm() for name, gradient in gradients.items()]
        assert torch.stack(off).norm() <= tolerance * whole


def test_a_training_with_kernels_takes_the_way_of_plain_layers(tmp_path, monkeypatch):
    """The same losses to rounding, and the same bits when it is resumed."""
    monkeypatch.chdir(tmp_path)
    sections = {
        "model": {"features": 24, "layers": 2, "n_rbf": 8, "radial_hidden": 16, "chi_hidden": 8},
        "data": {
            "train": str(FRAMES / "rmd17_ethanol_train01.npz"),
            "energy_key": "E",
            "forces_key": "F",
            "n_train": 20,
            "n_valid": 5,
        },
        "train": {"epochs": 4, "batch_size": 4, "learning_rate": 1e-4, "decay": "none", "tensorboard": False},
    }
    Path("c.yaml").write_text(yaml.safe_dump(sections))
    for run, words in (
        ("plain", ["train.kernels=plain"]),
        ("whole", ["train.kernels=compiled"]),
        ("cut", ["train.kernels=compiled", "train.epochs=2"]),
        ("cut", ["train.kernels=compiled", "--resume"]),
    ):
        assert main(["train", "c.yaml", *words, "-o", run]) == 0
    rows = {}
    for run in ("plain", "whole"):
        with open(f"{run}/log.csv") as file:
            rows[run] = [float(row["valid_loss"]) for row in csv.DictReader(file)]
    assert rows["whole"] == pytest.approx(rows["plain"], rel=1e-3)
    whole, cut = (read_checkpoint(f"{run}/last.ckpt")["weights"] for run in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_two_threads_give_the_same_bits_at_each_call(frames):
    config = CONFIGS["so3krates-2022"]
    torch.set_num_threads(2)
    try:
        first, second = (trained(TRAINING, config, torch.float32, frames) for _ in range(2))
    finally:
        torch.set_num_threads(1)
    assert torch.equal(first[1], second[1])
    assert all(torch.equal(first[2][name], second[2][name]) for name in first[2])
    alone = trained(TRAINING, config, torch.float32, frames)
    assert (alone[1] - first[1]).abs().max() <= 1e-5 * first[1].abs().max()


def test_the_choice_has_a_reason() -> None:
    config = CONFIGS["so3krates-2022"]
    assert training_parts(config, "cpu", torch.float32)[0] is TRAINING
    assert training_parts(config, "cuda", torch.float32) == (PLAIN, "the kernels for training are for CPUs")
    assert training_parts(config, "cpu", torch.float64)[0] is PLAIN
