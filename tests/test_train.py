"""Training: it learns, it reports, and killing it loses nothing."""

import csv
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.calculators.emt import EMT

from so3k_md import ModelConfig, load
from so3k_md.checkpoint import metadata, read_checkpoint, save_checkpoint
from so3k_md.cli import main
from so3k_md.data import Dataset
from so3k_md.errors import So3kError
from so3k_md.model import set_dtype
from so3k_md.model.forces import evaluate
from so3k_md.needs import needs_of
from so3k_md.train import prepare, validation
from so3k_md.train import step as one_step
from so3k_md.train.config import DataConfig, LossConfig, StartConfig, TrainConfig, read_config
from so3k_md.train.optimizer import learning_rate, update_average
from so3k_md.train.prepare import build_model, load_frames
from so3k_md.train.resume import FORMER

MODEL = {"preset": "so3krates-2022", "features": 24, "layers": 1, "n_rbf": 8, "radial_hidden": 16}


@pytest.fixture(scope="module")
def frames():
    """Copper and gold clusters and boxes of different size, labelled by effective medium theory."""
    rng = np.random.default_rng(0)
    made = []
    for k in range(8):
        if k % 2:
            atoms = Atoms("Cu2Au", 2.2 * np.eye(3) + rng.normal(scale=0.15, size=(3, 3)))
        else:
            atoms = Atoms("Cu4", cell=np.eye(3) * 3.7, pbc=True, scaled_positions=np.array(
                [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
            ))  # fmt: skip
            atoms.positions += rng.normal(scale=0.1, size=(4, 3))
        atoms.calc = EMT()
        atoms.get_potential_energy(), atoms.get_forces()
        if atoms.pbc.all():
            atoms.get_stress()
        made.append(atoms)
    return made


@pytest.fixture
def config_file(frames, tmp_path):
    """A training file beside its data."""
    ase.io.write(tmp_path / "frames.xyz", frames, format="extxyz")
    sections = {
        "model": MODEL,
        "data": {"train": "frames.xyz", "n_train": 6, "n_valid": 2},
        "loss": {"energy": 0.01, "forces": 0.99, "stress": 0.01},
        "train": {"epochs": 6, "batch_size": 2, "warmup_steps": 2, "tensorboard": False},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


def weights(folder):
    return read_checkpoint(folder / "last.ckpt")["weights"]


def rows(folder):
    with open(folder / "log.csv") as file:
        return list(csv.DictReader(file))


def test_it_overfits_a_few_frames_of_mixed_size_and_kind(config_file, tmp_path):
    arguments = ["train.epochs=100", "train.learning_rate=5e-3", "train.ema=0.9", "train.valid_every=100"]
    assert main(["train", str(config_file), *arguments, "-o", str(tmp_path / "run")]) == 0
    start = ["train.epochs=1", "train.learning_rate=1e-12"]
    assert main(["train", str(config_file), *start, "-o", str(tmp_path / "start")]) == 0
    end, begin = (float(rows(tmp_path / folder)[-1]["train_loss"]) for folder in ("run", "start"))
    assert end < 0.05 * begin


def test_a_run_leaves_everything_a_reader_needs(config_file, tmp_path):
    run = tmp_path / "run"
    assert main(["train", str(config_file), "train.tensorboard=true", "-o", str(run)]) == 0
    names = {path.name for path in run.iterdir()}
    assert names == {"best.ckpt", "last.ckpt", "config.yaml", "log.csv", "learning_curve.png", "tensorboard"}
    table = rows(run)
    assert [row["epoch"] for row in table] == [str(k) for k in range(1, 7)]
    assert all(np.isfinite(float(value)) for row in table for value in row.values())
    assert list((run / "tensorboard").glob("events*"))
    model = load(run / "best.ckpt")
    assert needs_of(model).elements == [29, 79]
    facts = metadata(model)["training"]
    assert facts["n_train"] == 6
    assert len(facts["files"]["frames.xyz"]) == 64
    assert read_config(run / "config.yaml").model == model.config


def test_killed_and_resumed_equals_uninterrupted(config_file, tmp_path):
    arguments = [str(config_file), "train.epochs=30", "train.valid_every=2"]
    assert main(["train", *arguments, "-o", str(tmp_path / "whole")]) == 0
    run = tmp_path / "killed"
    command = [sys.executable, "-m", "so3k_md", "train", *arguments, "-o", str(run)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while time.monotonic() < limit and process.poll() is None:
        if (run / "log.csv").exists() and len(rows(run)) >= 3:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_at = read_checkpoint(run / "last.ckpt")["training"]["epoch"]
    assert 2 <= killed_at < 30, "the process was to be killed in the middle"
    assert main(["train", *arguments, "-o", str(run), "--resume"]) == 0
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(tensor, weights(run)[name]), name
    best = [read_checkpoint(tmp_path / folder / "best.ckpt")["weights"] for folder in ("whole", "killed")]
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])
    tables = [rows(tmp_path / folder) for folder in ("whole", "killed")]
    for table in tables:
        for row in table:
            del row["seconds"]
    assert tables[0] == tables[1]


def test_a_validation_in_parts_gives_what_one_batch_gives(config_file, monkeypatch):
    config = read_config(config_file, ["train.dtype=float64", "data.n_train=3", "data.n_valid=5"])
    frames = load_frames(config.data, config.loss)
    model = set_dtype(build_model(config, frames, "test"), torch.float64)
    dataset = Dataset(frames.valid, needs_of(model).cutoff, model)
    assert len({len(graph.idx_i) for graph in dataset.graphs}) > 1
    sizes = []

    def counted(model, graph, n_frames):
        sizes.append(n_frames)
        return evaluate(model, graph, n_frames)

    monkeypatch.setattr(validation, "evaluate", counted)
    whole = validation.validate(model, dataset, config.loss, 50, torch.device("cpu"))
    assert sizes == [5]
    for batch_size, pairs, expected in ((50, 1, [1] * 5), (4, 10**6, [4, 1])):
        sizes.clear()
        monkeypatch.setattr(validation, "LARGEST_BATCH", pairs)
        parts = validation.validate(model, dataset, config.loss, batch_size, torch.device("cpu"))
        assert sizes == expected
        assert parts == pytest.approx(whole, rel=1e-12, nan_ok=True)
    assert np.isfinite(whole[:4]).all(), "errors of all labels that the frames have"


def test_a_validation_that_does_not_fit_the_memory_is_refused_before_training(
    config_file, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(prepare, "available_memory", lambda: 1e4)
    monkeypatch.setattr(prepare, "NUMBERS_PER_PAIR", 0)
    run = tmp_path / "run"
    assert main(["train", str(config_file), "-o", str(run)]) == 2
    assert "a validation batch of 2 frames with" in (message := capsys.readouterr().err)
    assert "lower train.valid_batch_size" in message
    assert not run.exists()


def test_resuming_with_another_configuration_is_refused(config_file, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", str(config_file), "train.epochs=1", "-o", str(run)]) == 0
    assert main(["train", str(config_file), "train.epochs=1", "-o", str(run)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["train", str(config_file), "train.batch_size=3", "-o", str(run), "--resume"]) == 2
    assert "train.batch_size was 2" in capsys.readouterr().err
    assert main(["train", str(config_file), "data.valid=other.xyz", "-o", str(run), "--resume"]) == 2
    assert "data.valid" in capsys.readouterr().err
    slower = ["train.epochs=2", "train.learning_rate=1e-4"]
    assert main(["train", str(config_file), *slower, "-o", str(run), "--resume"]) == 0
    assert len(rows(run)) == 2
    assert main(["train", str(config_file), "-o", str(tmp_path / "other"), "--resume"]) == 2
    assert "nothing to resume" in capsys.readouterr().err


def test_a_training_from_before_a_setting_existed_keeps_its_way(config_file, tmp_path, capsys):
    """Frames differ in size; a checkpoint without the setting divided no energy by atoms and knew no Muon."""
    config_file.write_text(config_file.read_text() + "  decay: none\n")
    former = ["train.optimizer=adamw", "train.embedding_scale=1.0", "train.kernels=plain"]
    words = [str(config_file), *former, "loss.energy_per_atom=never"]
    assert main(["train", *words, "train.epochs=4", "-o", str(tmp_path / "whole")]) == 0
    run = tmp_path / "run"
    assert main(["train", *words, "train.epochs=2", "-o", str(run)]) == 0
    document = read_checkpoint(run / "last.ckpt")
    for section, keys in FORMER.items():
        for key in keys:
            del document["training"]["config"][section][key]
    model = load(run / "last.ckpt")
    save_checkpoint(run / "last.ckpt", model, model.state_dict(), document["training"])
    assert main(["train", str(config_file), "train.epochs=4", "-o", str(run), "--resume"]) == 0
    assert all(
        torch.equal(weights(run)[name], weight) for name, weight in weights(tmp_path / "whole").items()
    )
    other = [str(config_file), "train.epochs=6", "train.optimizer=muon", "train.embedding_scale=2.0"]
    assert main(["train", *other, "-o", str(run), "--resume"]) == 2
    assert "was" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_with_the_last_checkpoint_whole(config_file, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = ["train.learning_rate=1e30", "train.warmup_steps=0", "train.clip_norm=1e30"]
    assert main(["train", str(config_file), *arguments, "-o", str(run)]) == 2
    message = capsys.readouterr().err
    assert "learning_rate" in message
    assert re.search(
        r"epoch 1, step [12] of 3; (weights are no longer finite|the largest loss of its)", message
    )


def test_the_frame_with_the_largest_loss_is_named(config_file, tmp_path, capsys, monkeypatch):
    """A frame whose forces are far from all others makes the norm of the derivatives infinite."""
    frames = ase.io.read(tmp_path / "frames.xyz", ":")
    frames[2].calc.results["forces"][0] = 9e9
    ase.io.write(tmp_path / "frames.xyz", frames, format="extxyz")
    monkeypatch.setattr(one_step, "derivatives", lambda *_: [torch.full((1,), torch.nan)])
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(torch.nan))
    words = ["data.accept_units=true", "train.batch_size=6"]
    assert main(["train", str(config_file), *words, "-o", str(tmp_path / "run")]) == 2
    assert re.search("the largest loss of its frames, .*frames.xyz, frame 2", capsys.readouterr().err)


def test_statistics_enter_the_energy_head_in_float64(config_file, frames, tmp_path):
    assert main(["train", str(config_file), "train.epochs=1", "-o", str(tmp_path / "run")]) == 0
    head = load(tmp_path / "run" / "best.ckpt").energies.head
    assert head.scale.dtype == head.shift.dtype == torch.float64
    assert head.shift[29] != 0
    assert head.shift[6] == 0


def test_every_setting_is_documented_with_its_default():
    text = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    for section in (ModelConfig, DataConfig, LossConfig, TrainConfig, StartConfig):
        for field in dataclasses.fields(section):
            default = field.default
            if default is dataclasses.MISSING or default is None:
                shown = "required" if default is dataclasses.MISSING else "none"
            else:
                shown = str(list(default) if isinstance(default, tuple) else default)
            shown = shown.lower() if isinstance(default, bool) else shown
            assert f"| `{field.name.rstrip('_')}` | {shown} | {field.metadata['doc']} |" in text


def test_learning_rate_rises_and_falls_to_its_end():
    for decay in ("exponential", "cosine"):
        config = TrainConfig(learning_rate=1e-3, final_learning_rate=1e-5, warmup_steps=10, decay=decay)
        rates = [learning_rate(step, 110, config) for step in range(111)]
        assert rates[0] == pytest.approx(1e-4)
        assert max(rates) == rates[10] == pytest.approx(1e-3)
        assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False))
        assert rates[110] == pytest.approx(1e-5)


def test_average_follows_its_recursion():
    model = torch.nn.Linear(2, 1)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    expected = average["weight"].clone()
    for step in range(5):
        with torch.no_grad():
            model.weight += 1.0
        update_average(average, model, step, 0.4)
        d = min(0.4, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * model.weight.detach()
    assert torch.allclose(average["weight"], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.featurs=24", ["model.featurs", "features"]),
        ("modle.features=24", ["modle", "model"]),
        ("train.epochs=many", ["train.epochs", "many", "whole number"]),
        ("train.epochs=1.5", ["train.epochs", "1.5"]),
        ("train.ema=1.5", ["train.ema", "1.5"]),
        ("model.preset=so3krates", ["so3krates", "so3krates-2022"]),
        ("loss.forces=-1", ["loss", "-1"]),
        ("loss.energy=.nan", ["loss", "nan"]),
        ("train.seed=-1", ["train.seed", "-1"]),
        ("train.weight_decay=-0.1", ["train.weight_decay", "-0.1"]),
        ("data.split_seed=-1", ["data.split_seed", "-1"]),
        ("epochs", ["epochs", "section.key=value"]),
    ],
)
def test_bad_settings_are_refused_by_name(config_file, override, words):
    with pytest.raises(So3kError) as refusal:
        read_config(config_file, [override])
    assert all(word in str(refusal.value) for word in words)
