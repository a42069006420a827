"""A folder in which everything is right, to be spoilt by each case, and what a refusal is."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from spoil import contents

from so3k_md import ModelConfig, So3krates, cli
from so3k_md.checkpoint import save_checkpoint
from so3k_md.export import torchscript

WATER = """3
Lattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3:forces:R:3 energy={energy} pbc="F F F"
O 0.0 0.0 0.0 0.0 0.0 0.1
H 0.96 0.0 0.0 0.0 0.0 -0.05
H -0.24 0.93 0.0 0.0 0.0 -0.05
"""
FRAMES = "".join(WATER.format(energy=-1.0 - 0.1 * k) for k in range(6))
TRAINING = {
    "model": {"features": 12, "heads": 2, "layers": 1, "degrees": [1, 2, 3], "n_rbf": 4},
    "data": {"train": "water.xyz", "n_train": 4, "n_valid": 2},
    "train": {"epochs": 1, "batch_size": 2, "tensorboard": False},
}


@pytest.fixture(scope="session")
def good(tmp_path_factory) -> Path:
    """A folder in which everything is right: data, training file, checkpoint and exported model."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "water.xyz").write_text(FRAMES)
    (folder / "train.yaml").write_text(yaml.safe_dump(TRAINING))
    model = So3krates(ModelConfig(**TRAINING["model"]), elements=[1, 8])
    save_checkpoint(folder / "model.ckpt", model, model.state_dict(), {})
    torchscript.save(model, folder / "model.pt", "water")
    return folder


@pytest.fixture
def folder(good, tmp_path, monkeypatch) -> Path:
    """A copy of it, to be spoilt by one case; commands run inside."""
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(folder, capsys) -> Callable[[str], str]:
    """Run a command that must be refused before it writes anything; the line that it leaves."""

    def run(command: str) -> str:
        before = contents(folder)
        assert cli.main(command.split()) == 2
        line = capsys.readouterr().err
        assert line.startswith("so3k-md: error: ")
        assert line.count("\n") == 1
        assert contents(folder) == before
        return line

    return run
