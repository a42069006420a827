"""Damage of a model file or a library is noticed before anything uses it; a model keeps its facts."""

import copy
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ase.build import molecule
from small_models import CONFIGS, lively

from so3k_md import ModelConfig, So3krates, builds, load
from so3k_md.checkpoint import UNSEALED_FORMAT, read_checkpoint, resolve_model, save_checkpoint
from so3k_md.cli import main
from so3k_md.engines.ase import So3kCalculator
from so3k_md.errors import So3kError
from so3k_md.export import torchscript
from so3k_md.kernels.choose import load_accelerated
from so3k_md.needs import GIVEN, needs_of, with_needs
from so3k_md.seals import look_at, members_are_intact, seal, seal_archive, seal_of

MUTANTS = 60


@pytest.fixture(scope="module")
def model() -> So3krates:
    return lively(So3krates(CONFIGS["so3krates-2022"], [1, 6, 8], seed=3))


@pytest.fixture(scope="module")
def files(model, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("sealed")
    torchscript.save(model, folder / "m.pt", "m", "off")
    save_checkpoint(folder / "m.ckpt", model, model.state_dict(), {})
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


def mutant(data: bytes, rng: random.Random) -> bytes:
    """The bytes with damage of one kind."""
    b, at = bytearray(data), rng.randrange(len(data))
    kind = rng.choice(["flip", "flip", "cut", "zero", "double", "lose", "noise"])
    width = rng.choice([1, 16, 512, 4096])
    if kind == "flip":
        b[at] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del b[at:]
    elif kind == "zero":
        b[at : at + width] = bytes(len(b[at : at + width]))
    elif kind == "double":
        b[at:at] = b[at : at + width]
    elif kind == "lose":
        del b[at : at + width]
    else:
        b[at : at + width] = rng.randbytes(len(b[at : at + width]))
    return bytes(b)


@pytest.mark.parametrize("suffix", [".pt", ".ckpt"])
def test_no_damage_is_used(files, suffix, tmp_path):
    """The one exception gives the right numbers: what lost only its seal, if it is a checkpoint of old."""
    path = tmp_path / f"mutant{suffix}"
    for seed in range(MUTANTS):
        damaged = mutant(files[suffix], random.Random(seed))
        if damaged == files[suffix]:
            continue
        path.write_bytes(damaged)
        with pytest.raises(So3kError, match="mutant") as refusal:
            load(path)
        assert "\n" not in str(refusal.value)
        assert "weights_only" not in str(refusal.value)


def test_code_of_a_file_without_a_seal_is_not_run(tmp_path, monkeypatch, capsys):
    class Trap(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = 1

        def forward(self, x: torch.Tensor):
            return x

        @torch.jit.export
        def __getstate__(self):
            return (self.a, self.training)

        @torch.jit.export
        def __setstate__(self, state: tuple[int, bool]):
            self.a = state[0]
            self.training = state[1]
            torch.save(torch.zeros(1), "ran")

    monkeypatch.chdir(tmp_path)
    torch.jit.script(Trap()).save("evil.pt")
    Path("ran").unlink(missing_ok=True)
    for verb in ("info evil.pt", "export evil.pt -o new.pt"):
        assert main(verb.split()) == 2
        assert "another program" in capsys.readouterr().err
    assert not Path("ran").exists()


def test_checkpoints_from_before_seals_are_read_if_their_parts_are_whole(model, tmp_path):
    save_checkpoint(tmp_path / "new.ckpt", model, model.state_dict(), {})
    document = read_checkpoint(tmp_path / "new.ckpt")
    facts = document.pop("facts")
    old = document | {"format": UNSEALED_FORMAT, "elements": facts["elements"], "metadata": facts["metadata"]}
    path = tmp_path / "old.ckpt"
    torch.save(old, path)
    assert seal_of(path) == "absent"
    assert needs_of(load(path)) == needs_of(model)
    data = path.read_bytes()
    weights = model.representation.layers[0].interaction.linear.weight.detach().numpy().tobytes()
    at = data.index(weights) + 2
    path.write_bytes(data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :])
    assert not members_are_intact(path)
    with pytest.raises(So3kError, match="old.ckpt is not a readable checkpoint"):
        load(path)


def test_facts_survive_every_way(model, tmp_path):
    """Checkpoint, export, export of the exported file, another precision."""
    told = copy.deepcopy(model)
    given = {"metadata": '{"name": "x"}', "singlets_only": True, "energy_shift": -163.6, "elements": [1, 8]}
    assert set(given) == set(GIVEN)
    needs = needs_of(with_needs(told, **given))
    save_checkpoint(tmp_path / "m.ckpt", told, told.state_dict(), {})
    assert needs_of(load(tmp_path / "m.ckpt", dtype="float64")) == needs
    assert main(["export", str(tmp_path / "m.ckpt"), "-o", str(tmp_path / "m.pt"), "--kernels", "off"]) == 0
    again = needs_of(load(tmp_path / "m.pt"))
    assert again._replace(metadata="") == needs._replace(metadata="")
    assert needs_of(told) == needs


def test_a_model_given_as_an_object_stays_as_it_is(model):
    mine = copy.deepcopy(model).train().requires_grad_(True)
    before = needs_of(mine)
    atoms = molecule("CH3CH2OH")
    atoms.calc = So3kCalculator(mine, dtype="float64", coulomb="shifted", cutoff_lr=8.0)
    atoms.get_potential_energy()
    assert next(mine.parameters()).dtype == torch.float32
    assert all(parameter.requires_grad for parameter in mine.parameters())
    assert mine.training
    assert needs_of(mine) == before


def test_seal_of_a_file(tmp_path):
    path = tmp_path / "file"
    for data, state in ((b"", "absent"), (b"abc", "absent"), (seal(b""), "intact"), (seal(b"abc"), "intact")):
        path.write_bytes(data)
        assert seal_of(path) == state
    path.write_bytes(b"x" + seal(b"abc"))
    assert seal_of(path) == "damaged"
    with pytest.raises(ValueError, match="without a comment"):
        seal_archive(b"no archive")


def test_a_library_with_its_end_cut_off_counts_as_not_built(tmp_path, monkeypatch):
    monkeypatch.setattr(builds, "build_roots", lambda kind: [tmp_path])
    with builds.workshop(tmp_path) as work:
        (work / "a.so").write_bytes(b"library")
        builds.install(work, tmp_path / "key", "a.so")
    assert builds.find_build("kind", "key", "a.so") == tmp_path / "key"
    data = (tmp_path / "key" / "a.so").read_bytes()
    (tmp_path / "key" / "a.so").write_bytes(data[:-1])
    assert builds.find_build("kind", "key", "a.so") is None


def test_folders_of_killed_builds_go_with_the_next(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from so3k_md.builds import workshop\n"
        "with workshop(Path(sys.argv[1])): os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    [killed] = tmp_path.iterdir()
    old, foreign = tmp_path / "building-old", tmp_path / "building-elsewhere-1-x"
    old.mkdir()
    foreign.mkdir()
    os.utime(old, (time.time() - 2e5,) * 2)
    with builds.workshop(tmp_path) as work:
        assert set(tmp_path.iterdir()) == {work, foreign}
    assert not killed.exists()


@pytest.mark.parametrize("form", ["checkpoint", "exported"])
def test_a_model_file_is_hashed_once_and_damage_is_seen_again(tmp_path, monkeypatch, form):
    path = tmp_path / ("model.ckpt" if form == "checkpoint" else "model.pt")
    if form == "checkpoint":
        model = So3krates(ModelConfig(features=8, layers=1, heads=2, degrees=(1,), n_rbf=4), [1, 8])
        save_checkpoint(path, model, model.state_dict(), {})
    else:
        shutil.copy(resolve_model("cumulene-local"), path)
    hashed = []

    def counted(path):
        hashed.append(path)
        return look_at(path)

    monkeypatch.setattr("so3k_md.kernels.choose.look_at", counted)
    monkeypatch.setattr("so3k_md.checkpoint.seal_of", lambda path: counted(path).state)
    first = load_accelerated(path, kernels="off")
    assert hashed == [path]
    assert load_accelerated(path, kernels="off") is first
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(So3kError, match="is damaged"):
        load_accelerated(path, kernels="off")
