"""Model and data files that cannot be used, and options of the verbs that read them."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from spoil import edit, truncate

from so3k_md import cli


def test_the_good_folder_is_good(folder):
    assert cli.main(["eval", "model.ckpt", "water.xyz", "--json", "new.json"]) == 0
    assert cli.main(["train", "train.yaml", "-o", "run"]) == 0


# Model files: each verb that takes a model refuses the same ones.
VERBS_WITH_MODEL = ("eval {} water.xyz", "info {}")


def foreign_script() -> None:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save("model.pt")


MODELS = {
    "missing": (None, "absent.pt", "no model file absent.pt"),
    "misspelt name of a shipped model": (None, "ethanol-rmd71", "bundled models: "),
    "folder": (lambda: Path("folder").mkdir(), "folder", "folder"),
    "truncated checkpoint": (lambda: truncate("model.ckpt"), "model.ckpt", "model.ckpt.*truncated"),
    "truncated export": (lambda: truncate("model.pt"), "model.pt", "model.pt.*truncated"),
    "empty": (lambda: truncate("model.pt", 0), "model.pt", "model.pt"),
    "text": (lambda: Path("model.pt").write_text("hello"), "model.pt", "model.pt"),
    "pickle of another program": (lambda: torch.save({"a": 1}, "model.pt"), "model.pt", "so3k-md train"),
    "TorchScript of another program": (foreign_script, "model.pt", "so3k-md export"),
}


@pytest.mark.parametrize("command", VERBS_WITH_MODEL)
@pytest.mark.parametrize("case", MODELS)
def test_model_file(case, command, refused):
    spoil, name, said = MODELS[case]
    if spoil:
        spoil()
    assert re.search(said, refused(command.format(name)))


def test_pickled_code_is_not_run(refused):
    class Trap:
        def __reduce__(self):
            return Path.touch, (Path("ran"),)

    torch.save({"weights": Trap()}, "model.ckpt")
    refused("eval model.ckpt water.xyz")
    assert not Path("ran").exists()


# Data files.
def npz(**arrays) -> None:
    full = {"z": np.array([8, 1, 1]), "R": np.eye(3)[None], "E": np.zeros(1), "F": np.zeros((1, 3, 3))}
    np.savez("data.npz", **{key: value for key, value in (full | arrays).items() if value is not None})


DATA = {
    "missing": (None, "absent.xyz", "absent.xyz"),
    "folder": (lambda: Path("folder.xyz").mkdir(), "folder.xyz", "folder.xyz: is a folder"),
    "empty": (lambda: truncate("water.xyz", 0), "water.xyz", "water.xyz: is empty"),
    "truncated": (lambda: truncate("water.xyz", 0.9), "water.xyz", "water.xyz, frame 5.*truncated"),
    "binary": (lambda: Path("water.xyz").write_bytes(bytes(range(128, 256))), "water.xyz", "is not text"),
    "wrong count": (lambda: edit("water.xyz", "3\n", "2\n"), "water.xyz", "frame"),
    "not a number": (lambda: edit("water.xyz", "0.93", "x.93"), "water.xyz", "frame 0"),
    "NaN position": (lambda: edit("water.xyz", "0.93", "nan"), "water.xyz", "frame 0.*position"),
    "infinite position": (lambda: edit("water.xyz", "0.93", "inf"), "water.xyz", "frame 0.*position"),
    "NaN energy": (lambda: edit("water.xyz", "energy=-1.0", "energy=nan"), "water.xyz", "frame 0.*energy"),
    "no such element": (lambda: edit("water.xyz", "O 0", "Xq 0"), "water.xyz", "frame 0.*Xq"),
    "element the model lacks": (lambda: edit("water.xyz", "O 0", "S 0"), "water.xyz", "frame 0.*S"),
    "npz without positions": (lambda: npz(R=None), "data.npz", "no positions; expected one of"),
    "npz of wrong shape": (lambda: npz(R=np.zeros((1, 3, 2))), "data.npz", "expected .frames, atoms, 3."),
    "npz with too few energies": (lambda: npz(R=np.zeros((2, 3, 3))), "data.npz", "2 frames, but 1 entries"),
    "truncated npz": (lambda: (npz(), truncate("data.npz")), "data.npz", "data.npz: cannot be read"),
}


@pytest.mark.parametrize("case", DATA)
def test_data_file(case, refused):
    spoil, name, said = DATA[case]
    if spoil:
        spoil()
    assert re.search(said, refused(f"eval model.ckpt {name} --json new.json"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--energy-key REF_energy", "water.xyz.*energy key 'REF_energy'; keys present: .*forces"),
        ("--forces-key REF_forces", "water.xyz.*forces key 'REF_forces'"),
        ("--energy-unit furlong", "furlong"),
        ("--device quantum", "quantum.*cpu"),
        ("--dtype float16", "float16"),
        ("--groups molecule", "--groups.*auto.*all"),
        ("--batch-size 0", "batch-size"),
        ("--json water.xyz --overwrite", "water.xyz is named twice"),
    ],
)
def test_eval_options(options, said, refused):
    assert re.search(said, refused(f"eval model.ckpt water.xyz {options}"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("absent.ckpt -o new.pt", "no model file absent.ckpt"),
        ("water.xyz -o new.pt", "water.xyz is not a readable checkpoint"),
        ("model.ckpt -o new.ckpt", "new.ckpt does not end in .pt"),
        ("model.ckpt -o model.pt", "model.pt exists already.*--overwrite"),
        ("model.ckpt -o new.pt --dtype float16", "float16"),
    ],
)
def test_export(arguments, said, refused):
    assert re.search(said, refused(f"export {arguments}"))
