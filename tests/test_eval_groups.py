"""`so3k-md eval` and `train` with models whose attention reaches beyond the cutoff within groups."""

import re

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from nonlocal_models import CELL, NONLOCAL, molecules
from small_models import lively

from so3k_md import So3krates, load
from so3k_md.checkpoint import save_checkpoint
from so3k_md.cli import main
from so3k_md.data import read_frames
from so3k_md.evaluate import predict
from so3k_md.model import set_dtype


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models of each kind; molecules in a box whole and broken, open, and in a box without groups."""
    folder = tmp_path_factory.mktemp("eval")
    for name, config in NONLOCAL.items():
        model = lively(set_dtype(So3krates(config, [1, 6, 8], seed=3), torch.float64))
        save_checkpoint(folder / f"{name}.ckpt", model, model.state_dict(), {})
    numbers, positions, group = molecules()
    whole = Atoms(numbers, positions, cell=CELL, pbc=True)
    whole.arrays["group"] = 100 - group
    broken = whole.copy()
    broken.positions += np.random.default_rng(0).integers(-2, 3, (len(whole), 3)) @ CELL
    lone = Atoms(numbers[:8], positions[:8])
    ase.io.write(folder / "boxes.xyz", [whole, broken], format="extxyz", write_results=False)
    ase.io.write(folder / "mixed.xyz", [whole, lone, broken, lone], format="extxyz")
    del whole.arrays["group"]
    ase.io.write(folder / "ungrouped.xyz", [lone, whole], format="extxyz")
    return folder


@pytest.mark.parametrize("name", NONLOCAL)
def test_broken_molecules_evaluate_like_whole_ones(folder, name):
    model, frames = load(folder / f"{name}.ckpt"), read_frames(folder / "boxes.xyz")
    whole, broken = predict(model, frames)
    assert broken.energy == pytest.approx(whole.energy, abs=1e-7)  # ASE writes eight decimals
    np.testing.assert_allclose(broken.forces, whole.forces, atol=1e-6)
    np.testing.assert_allclose(broken.stress, whole.stress, atol=1e-7)
    if name != "efa-reciprocal":
        ignored = [frame._replace(group=np.arange(16)) for frame in frames]
        assert abs(predict(model, ignored)[0].energy - whole.energy) > 1e-4


@pytest.mark.parametrize("name", ["sphc-2022", "efa-lebedev"])
def test_batching_changes_nothing(folder, name):
    model, frames = load(folder / f"{name}.ckpt"), read_frames(folder / "mixed.xyz")
    for one, other in zip(predict(model, frames, 1), predict(model, frames, 4), strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-10)
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-10)


def test_predictions_can_be_evaluated_again(folder, tmp_path):
    words = ["eval", str(folder / "sphc-2022.ckpt"), str(folder / "mixed.xyz")]
    assert main([*words, "--predictions", str(tmp_path / "a.xyz")]) == 0
    model, frames = load(folder / "sphc-2022.ckpt"), read_frames(tmp_path / "a.xyz")
    for frame, found in zip(frames, predict(model, frames), strict=True):
        assert frame.energy == pytest.approx(found.energy, abs=1e-11)


def test_stress_is_the_derivative_of_the_energy(folder):
    step = 1e-4
    for name in NONLOCAL:
        model, frame = load(folder / f"{name}.ckpt"), read_frames(folder / "boxes.xyz")[1]
        stress = predict(model, [frame])[0].stress
        for a, b in [(0, 0), (1, 2), (0, 2)]:
            energies = []
            for sign in (1, -1):
                deform = np.eye(3)
                deform[a, b] += sign * step / 2
                deform[b, a] += sign * step / 2
                moved = frame._replace(positions=frame.positions @ deform, cell=frame.cell @ deform)
                energies.append(predict(model, [moved])[0].energy)
            assert (energies[0] - energies[1]) / (2 * step * frame.volume) == pytest.approx(
                stress[a, b], abs=1e-7
            )


def test_all_warns_in_one_line(folder, capsys):
    words = ["eval", str(folder / "sphc-2022.ckpt"), str(folder / "ungrouped.xyz"), "--groups", "all"]
    for _ in range(2):
        assert main(words) == 0
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert re.search("^so3k-md: warning: .*neither extensive nor separable.*which image", lines[0])


def test_groups_of_a_file_are_missed_with_its_frame(folder, capsys):
    assert main(["eval", str(folder / "sphc-2022.ckpt"), str(folder / "ungrouped.xyz")]) == 2
    line = capsys.readouterr().err
    assert re.search(r"ungrouped.xyz, frame 1: is periodic.*groups: all", line)
    assert line.count("\n") == 1
    assert main(["eval", str(folder / "sphc-2022.ckpt"), "x.xyz", "--groups", "molecule"]) == 2
    assert "--groups" in capsys.readouterr().err


MODEL = {"features": 12, "heads": 2, "layers": 1, "degrees": [1, 2], "n_rbf": 4, "cutoff": 3.0}


@pytest.mark.parametrize("kind", ["sphc", "efa", "none"])
def test_training_takes_groups_or_refuses(folder, tmp_path, monkeypatch, capsys, kind):
    monkeypatch.chdir(tmp_path)
    sections = {
        "model": MODEL | {"nonlocal": kind},
        "data": {"train": str(folder / "mixed.xyz"), "n_train": 3, "n_valid": 1},
        "loss": {"energy": 0.0, "forces": 1.0},
        "train": {"epochs": 1, "batch_size": 2, "tensorboard": False},
    }
    frames = ase.io.read(folder / "mixed.xyz", ":")
    for k, atoms in enumerate(frames):
        atoms.arrays["forces"] = np.full((len(atoms), 3), 0.1 * k)
    ase.io.write("with.xyz", frames)
    for atoms in frames:
        atoms.arrays.pop("group", None)
    ase.io.write("without.xyz", frames)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(sections))
    assert main(["train", "run.yaml", f"data.train={tmp_path / 'with.xyz'}", "-o", "good"]) == 0
    capsys.readouterr()
    without = ["train", "-o", "bad", "run.yaml", f"data.train={tmp_path / 'without.xyz'}"]
    if kind == "none":
        assert main(without) == 0
        return
    assert main(without) == 2
    assert re.search(r"without.xyz, frame \d: is periodic", capsys.readouterr().err)
    assert not (tmp_path / "bad").exists()
    assert main([*without, "data.groups=molecule"]) == 2
    assert "data.groups = 'molecule' is unknown" in capsys.readouterr().err
    if kind == "sphc":  # the box is wider than the waves of efa reach
        assert main([*without, "data.groups=all"]) == 0
        assert capsys.readouterr().err.count("so3k-md: warning:") == 1
