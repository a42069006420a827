"""Training refuses what would give wrong models, and stops without losing anything."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from training_kills import SECTIONS, tensorboard_steps, write_frames

from so3k_md.checkpoint import read_checkpoint
from so3k_md.cli import main
from so3k_md.data.references import comparable
from so3k_md.files import locked, remove_leftovers
from so3k_md.train.log import Log, Row

MODEL = SECTIONS["model"]


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    """A training file beside frames of ethanol, labelled by effective medium theory."""
    write_frames(tmp_path)
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
    assert "are not those with which the training in run started" in capsys.readouterr().err


def test_an_element_of_the_validation_alone_is_refused(config_file, capsys):
    text = config_file.with_name("frames.xyz").read_text()
    config_file.with_name("valid.xyz").write_text(text.replace("O  ", "S  ", 1))
    override = ["data.valid=valid.xyz", "data.n_valid=null"]
    assert main(["train", "-o", "run", "config.yaml", *override]) == 2
    assert "validation frame contains S, which no training frame contains" in capsys.readouterr().err


def test_a_folder_in_use_and_several_processes_are_refused(config_file, tmp_path, capsys, monkeypatch):
    (tmp_path / "run").mkdir()
    with locked("run"):
        assert main(["train", "config.yaml", "-o", "run"]) == 2
    assert "run is in use by process" in capsys.readouterr().err
    assert list((tmp_path / "run").iterdir()) == []
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "config.yaml", "-o", "run"]) == 2
    assert "torchrun" in capsys.readouterr().err


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


@pytest.mark.slow
def test_kills_at_random_moments_and_within_writes_lose_nothing():
    script = Path(__file__).parent / "training_kills.py"
    words = [sys.executable, script, "--kills", "6"]
    found = subprocess.run(words, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("override", [[], ["train.batch_size=3"]])
def test_resuming_what_ended_before_its_first_checkpoint_begins(config_file, tmp_path, capsys, override):
    assert main(["train", "config.yaml", "-o", "whole"]) == 0
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy("whole/config.yaml", run)  # what a training leaves that is killed at once
    shutil.copy("whole/best.ckpt", run)  # what it had not yet removed of another one, with --overwrite
    assert main(["train", "config.yaml", *override, "-o", "run", "--resume"]) == (2 if override else 0)
    if override:
        assert "train.batch_size was 2 when run/config.yaml was written" in capsys.readouterr().err
    else:
        ours, theirs = (read_checkpoint(f"{name}/last.ckpt")["weights"] for name in ("run", "whole"))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_checkpoint_alone_is_not_replaced_unasked(config_file, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.ckpt").write_text("weights")
    assert main(["train", "config.yaml", "-o", "run"]) == 2
    assert "run holds a training already" in capsys.readouterr().err
    assert (tmp_path / "run" / "last.ckpt").read_text() == "weights"


def test_records_of_a_validation_that_was_not_saved_are_purged(tmp_path):
    for value in (1.0, 2.0):  # the first process was killed between the record and its checkpoint
        with Log(tmp_path, [], tensorboard=True) as log:
            log.add(Row(1, 5, *[value] * 7))
    assert tensorboard_steps(tmp_path) == [5]


WRITER = """
import sys, time
from so3k_md.files import atomic
with atomic(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("stopped", flush=True)
    time.sleep(60)
"""


def test_a_process_killed_within_a_write_leaves_the_old_file_and_the_next_start_clears(tmp_path):
    target = tmp_path / "a.ckpt"
    target.write_text("old")
    writer = subprocess.Popen([sys.executable, "-c", WRITER, target], stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "stopped\n"
    (temporary,) = set(tmp_path.iterdir()) - {target}
    remove_leftovers(tmp_path)
    assert temporary.exists(), "its process still runs"
    writer.kill()
    writer.communicate()
    assert (target.read_text(), temporary.read_text()) == ("old", "half")
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [target]
