"""Several processes, and parts of a batch, train as one process with the whole batch does."""

import csv
import os
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
from ase.build import molecule
from ase.calculators.emt import EMT

from so3k_md.checkpoint import read_checkpoint
from so3k_md.cli import main

SECTIONS = {
    "model": {"features": 24, "layers": 1, "n_rbf": 8, "radial_hidden": 16, "chi_hidden": 8},
    "data": {"train": "frames.xyz", "n_train": 9, "n_valid": 5},
    "loss": {"energy": 0.1, "forces": 0.9},
    "train": {
        "epochs": 4,
        "batch_size": 4,  # the last batch of an epoch has one frame, which one process alone computes
        "warmup_steps": 2,
        "dtype": "float64",
        "tensorboard": False,
        "learning_rate": 1e-3,
    },
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    rng = np.random.default_rng(0)
    frames = [molecule(name) for name in ("CH3CH2OH", "H2O", "CH4") * 5][:14]
    for k, atoms in enumerate(frames):
        atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
        atoms.calc = EMT()
        atoms.get_potential_energy()
        if k % 3:  # a third has no forces
            atoms.get_forces()
    ase.io.write(tmp_path / "frames.xyz", frames, format="extxyz")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(SECTIONS))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def torchrun(*arguments: str) -> subprocess.Popen:
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "so3k_md", "train"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *words, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def result(run: str) -> tuple[dict[str, torch.Tensor], list[dict[str, str]]]:
    with open(f"{run}/log.csv") as file:
        return read_checkpoint(f"{run}/last.ckpt")["weights"], list(csv.DictReader(file))


def assert_equal(one: str, other: str) -> None:
    (weights, rows), (others, other_rows) = result(one), result(other)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], rtol=1e-8, atol=1e-10, msg=name)
    for row, another in zip(rows, other_rows, strict=True):
        for key in set(row) - {"seconds"}:
            assert float(row[key]) == pytest.approx(float(another[key]), rel=1e-7, nan_ok=True), key


@pytest.mark.filterwarnings("ignore::so3k_md.errors.So3kWarning")
def test_parts_of_a_batch_add_up_to_it(folder):
    assert main(["train", "config.yaml", "-o", "whole"]) == 0
    assert main(["train", "config.yaml", "train.most_pairs=80", "-o", "parts"]) == 0
    assert_equal("whole", "parts")


@pytest.mark.filterwarnings("ignore::so3k_md.errors.So3kWarning")
def test_two_processes_train_as_one(folder):
    assert main(["train", "config.yaml", "-o", "one"]) == 0
    process = torchrun("config.yaml", "-o", "two")
    output = process.communicate(timeout=240)[0].decode()
    assert process.returncode == 0, output
    assert output.count("best checkpoint") == 1, "the first process alone writes"
    assert_equal("one", "two")


@pytest.mark.filterwarnings("ignore::so3k_md.errors.So3kWarning")
def test_two_processes_stop_together_and_resume(folder):
    long = ["config.yaml", "train.epochs=400", "train.valid_every=100", "-o", "run"]
    process = torchrun(*long)
    limit = time.monotonic() + 200
    while not Path("run/config.yaml").exists() and time.monotonic() < limit:
        time.sleep(0.1)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)  # torchrun passes it on
    process.communicate(timeout=100)
    state = read_checkpoint("run/last.ckpt")["training"]
    assert 0 < state["epoch"] < 400
    assert main(["train", *long[:1], f"train.epochs={state['epoch'] + 2}", *long[2:], "--resume"]) == 0


def test_processes_that_torchrun_did_not_start_are_refused(folder, monkeypatch, capsys):
    for name, says in (("WORLD_SIZE", "but RANK is not set"), ("OMPI_COMM_WORLD_SIZE", "with torchrun")):
        monkeypatch.setenv(name, "2")
        assert main(["train", "config.yaml", "-o", "run"]) == 2
        assert says in capsys.readouterr().err
        monkeypatch.delenv(name)
    assert not Path("run").exists()
