"""Training refuses what would give wrong models, and stops without losing anything."""

import os
import signal
import subprocess
import sys
import time

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase.build import molecule
from ase.calculators.emt import EMT

from so3k_md.checkpoint import read_checkpoint
from so3k_md.cli import main
from so3k_md.data.references import comparable
from so3k_md.files import locked

MODEL = {"features": 12, "heads": 2, "layers": 1, "degrees": [1, 2, 3], "n_rbf": 4}


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    """A training file beside frames of ethanol, labelled by effective medium theory."""
    rng = np.random.default_rng(0)
    frames = [molecule("CH3CH2OH") for _ in range(12)]
    for atoms in frames:
        atoms.positions += 0.03 * rng.normal(size=atoms.positions.shape)
        atoms.calc = EMT()
        atoms.get_potential_energy(), atoms.get_forces()
    ase.io.write(tmp_path / "frames.xyz", frames, format="extxyz")
    sections = {
        "model": MODEL,
        "data": {"train": "frames.xyz", "n_valid": 2, "accept_units": True},
        "train": {"epochs": 3, "batch_size": 2, "tensorboard": False},
    }
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


pytestmark = pytest.mark.filterwarnings("ignore:.*accepted, as data.accept_units")


def test_other_frames_are_refused_on_resume(config_file, capsys):
    assert main(["train", "config.yaml", "-o", "run"]) == 0
    text = config_file.with_name("frames.xyz").read_text()
    config_file.with_name("frames.xyz").write_text(text + text[: len(text) // 12 * 12])
    assert main(["train", "config.yaml", "train.epochs=4", "-o", "run", "--resume"]) == 2
    assert "are not those that the training in run began with" in capsys.readouterr().err


def test_an_element_of_the_validation_alone_is_refused(config_file, capsys):
    text = config_file.with_name("frames.xyz").read_text()
    config_file.with_name("valid.xyz").write_text(text.replace("O  ", "S  ", 1))
    override = ["data.valid=valid.xyz", "data.n_valid=null"]
    assert main(["train", "-o", "run", "config.yaml", *override]) == 2
    assert "validates on S, which no training frame has" in capsys.readouterr().err


def test_a_folder_in_use_and_several_processes_are_refused(config_file, tmp_path, capsys, monkeypatch):
    (tmp_path / "run").mkdir()
    with locked("run"):
        assert main(["train", "config.yaml", "-o", "run"]) == 2
    assert "run is in use by process" in capsys.readouterr().err
    assert list((tmp_path / "run").iterdir()) == []
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "config.yaml", "-o", "run"]) == 2
    assert "without torchrun" in capsys.readouterr().err


def test_no_pairs_are_refused(config_file, capsys):
    assert main(["train", "config.yaml", "model.cutoff=0.5", "-o", "run"]) == 2
    assert "model.cutoff = 0.5" in capsys.readouterr().err
    assert not config_file.with_name("run").exists()


def test_sigterm_saves_and_resuming_equals_an_uninterrupted_run(config_file, tmp_path):
    settings = ["config.yaml", "train.epochs=60", "train.valid_every=60"]
    command = [sys.executable, "-m", "so3k_md", "train", *settings, "-o", "stopped"]
    process = subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )
    limit = time.monotonic() + 60
    while time.monotonic() < limit and not (tmp_path / "stopped" / "config.yaml").exists():
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert "stopped by SIGTERM" in process.communicate()[1]
    assert process.returncode == 143
    assert main(["train", *settings, "-o", "stopped", "--resume"]) == 0
    assert main(["train", *settings, "-o", "whole"]) == 0
    both = [read_checkpoint(tmp_path / run / "last.ckpt")["weights"] for run in ("stopped", "whole")]
    assert all(torch.equal(both[0][name], both[1][name]) for name in both[0])


def test_which_compositions_can_be_compared():
    references = {"source": "fit", "elements": [1, 6, 8], "compositions": [[6, 2, 1], [2, 0, 1]]}
    facts = {"references": references}
    assert comparable([1] * 8 + [6] * 2 + [8] * 2, facts)
    assert not comparable([6, 1, 1, 1, 1], facts)
    assert comparable([6, 1, 1, 1, 1], {"references": references | {"source": "isolated atoms"}})
    assert comparable([6], {})
