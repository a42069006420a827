"""What users get wrong: each mistake ends with exit code 2 and one line that says what, where and what to do.

Nothing is written, and no traceback is shown.
"""

import os
import re
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

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


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file with its bytes and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refused(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused before it writes anything; the line that it leaves."""
    before = contents(Path())
    assert cli.main(command.split()) == 2
    line = capsys.readouterr().err
    assert line.startswith("so3k-md: error: ")
    assert line.count("\n") == 1
    assert contents(Path()) == before
    return line


def edit(name: str, old: str, new: str) -> None:
    """Spoil a text file."""
    text = Path(name).read_text()
    assert old in text
    Path(name).write_text(text.replace(old, new, 1))


def truncate(name: str, part: float = 0.5) -> None:
    """Cut a file short."""
    data = Path(name).read_bytes()
    Path(name).write_bytes(data[: int(part * len(data))])


def test_the_good_folder_is_good(folder):
    assert cli.main(["eval", "model.ckpt", "water.xyz", "--json", "new.json"]) == 0
    assert cli.main(["train", "train.yaml", "-o", "run"]) == 0


# Model files: each verb that takes a model refuses the same ones.
VERBS_WITH_MODEL = ("eval {} water.xyz", "info {}")


def foreign_script() -> None:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save("model.pt")


MODELS = {
    "missing": (None, "absent.pt", "no model file absent.pt"),
    "misspelt name of a shipped model": (None, "ethanol-rmd71", "models that come with so3k-md"),
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
def test_model_file(case, command, folder, capsys):
    spoil, name, said = MODELS[case]
    if spoil:
        spoil()
    assert re.search(said, refused(command.format(name), capsys))


def test_pickled_code_is_not_run(folder, capsys):
    class Trap:
        def __reduce__(self):
            return Path.touch, (Path("ran"),)

    torch.save({"weights": Trap()}, "model.ckpt")
    refused("eval model.ckpt water.xyz", capsys)
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
    "npz with too few energies": (lambda: npz(R=np.zeros((2, 3, 3))), "data.npz", "2 frames, yet 1 entries"),
    "truncated npz": (lambda: (npz(), truncate("data.npz")), "data.npz", "data.npz: cannot be read"),
}


@pytest.mark.parametrize("case", DATA)
def test_data_file(case, folder, capsys):
    spoil, name, said = DATA[case]
    if spoil:
        spoil()
    assert re.search(said, refused(f"eval model.ckpt {name} --json new.json", capsys))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--energy-key REF_energy", "water.xyz.*energy key 'REF_energy'; keys present: .*forces"),
        ("--forces-key REF_forces", "water.xyz.*forces key 'REF_forces'"),
        ("--energy-unit furlong", "furlong"),
        ("--device quantum", "quantum.*cpu"),
        ("--dtype float16", "float16"),
        ("--batch-size 0", "batch-size"),
        ("--json water.xyz --overwrite", "water.xyz is named twice"),
    ],
)
def test_eval_options(options, said, folder, capsys):
    assert re.search(said, refused(f"eval model.ckpt water.xyz {options}", capsys))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("absent.ckpt -o new.pt", "no model file absent.ckpt"),
        ("water.xyz -o new.pt", "water.xyz is not a readable checkpoint"),
        ("model.pt -o new.pt", "model.pt is exported already"),
        ("model.ckpt -o new.ckpt", "new.ckpt does not end in .pt"),
        ("model.ckpt -o model.pt", "model.pt exists already.*--overwrite"),
        ("model.ckpt -o new.pt --dtype float16", "float16"),
    ],
)
def test_export(arguments, said, folder, capsys):
    assert re.search(said, refused(f"export {arguments}", capsys))


# The training file.
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.feature=12", "model.feature: did you mean features"),
        ("modle.features=12", "did you mean model"),
        ("train.epochs=many", "train.epochs = 'many'.*whole number"),
        ("train.epochs=1.5", "train.epochs = 1.5.*whole number"),
        ("train.epochs=0", "train.epochs = 0.*positive"),
        ("model.parity=7", "model.parity = 7.*true or false"),
        ("model.heads=5", "model.features = 12.*divisible by heads = 5"),
        ("model.degrees=[1,9]", "model.degrees.*0 to 4"),
        ("model.cutoff=-5", "model.cutoff = -5.*positive"),
        ("model.radial_basis=bessel", "model.radial_basis = 'bessel'.*bernstein"),
        ("model.preset=so3krates-2023", "so3krates-2023.*so3krates-2022"),
        ("loss.forces=-1", "loss.*-1.*negative"),
        ("train.dtype=float16", "float16.*float32"),
        ("train.device=quantum", "quantum.*cpu"),
        ("data.train=absent.xyz", "absent.xyz"),
        ("data.n_train=600", "n_train = 600.*6 frames"),
        ("data.energy_key=U", "water.xyz.*energy key 'U'; keys present"),
        ("data.energy_unit=furlong", "furlong"),
        ("loss.stress=1", "stress"),
        ("train.epochs", "section.key=value"),
    ],
)
def test_training_file(override, said, folder, capsys):
    assert re.search(said, refused(f"train train.yaml {override} -o run", capsys))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: [1, 2", "train.yaml is not valid YAML"),
        ("hello", "train.yaml holds no sections: it needs model, data, loss, train"),
        ("model: 3", "section model of train.yaml"),
        ("data: {n_train: 4}", "data.train"),
    ],
)
def test_malformed_training_file(text, said, folder, capsys):
    Path("train.yaml").write_text(text)
    assert re.search(said, refused("train train.yaml -o run", capsys))


def test_missing_training_file(folder, capsys):
    assert "absent.yaml" in refused("train absent.yaml -o run", capsys)


# Outputs: (command, the file it writes).
OUTPUTS = {
    "eval --json": ("eval model.ckpt water.xyz --json {}", "new.json"),
    "eval --predictions": ("eval model.ckpt water.xyz --predictions {}", "new.xyz"),
    "eval --plot": ("eval model.ckpt water.xyz --plot {}", "new"),
    "train": ("train train.yaml -o {}", "new"),
    "export": ("export model.ckpt -o {}", "new.pt"),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_output_that_exists(case, folder, capsys):
    command, name = OUTPUTS[case]
    Path(name).write_text("kept")
    assert re.search(f"{name}.*(overwrite|choose another name)", refused(command.format(name), capsys))


@pytest.mark.parametrize("case", [case for case in OUTPUTS if case != "train"])  # it makes its folders
def test_output_in_a_missing_folder(case, folder, capsys):
    command, name = OUTPUTS[case]
    assert "absent" in refused(command.format(f"absent/{name}"), capsys)


@pytest.mark.parametrize("case", OUTPUTS)
def test_output_in_a_read_only_folder(case, folder, capsys, monkeypatch):
    command, name = OUTPUTS[case]
    Path("locked").mkdir(mode=0o555)
    # The rights of root are boundless, and tests may run as root: answer as for everyone else.
    monkeypatch.setattr(os, "access", lambda path, mode, **_: bool(os.stat(path).st_mode & 0o222))
    assert re.search("locked.*written", refused(command.format(f"locked/{name}"), capsys))


@pytest.mark.parametrize(
    ("case", "limit"),  # bytes: the first write of the command fails, or a later one of another kind
    [("eval --json", 100), ("eval --plot", 4000), ("train", 100), ("train", 4000), ("export", 4000)],
)
def test_full_disk(case, limit, folder, capsys):
    """No file may grow beyond a limit; what is on the disk afterwards is whole."""
    command, name = OUTPUTS[case]
    assert cli.main(command.format(f"other_{name}").split()) == 0  # imports write files of their own
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        assert cli.main(command.format(name).split()) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert re.search(r"so3k-md: error: .*(free space)", capsys.readouterr().err)
    assert [path for path in Path().rglob("*.part*")] == []


def test_output_that_is_a_pipe(folder, capsys):
    os.mkfifo("pipe")
    assert "pipe is a device or a pipe" in refused(
        "eval model.ckpt water.xyz --json pipe --overwrite", capsys
    )
