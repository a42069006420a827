"""Everything in simulations/, and the demo, runs as it stands: here a few steps, with the shipped model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from so3k_md import cli
from so3k_md.checkpoint import resolve_model
from so3k_md.engines import lammps

ROOT = Path(__file__).parents[1]
SIMULATIONS = ROOT / "simulations"

# How each file is run for a few steps, inside an empty folder to which simulations/ has been copied.
PYTHON = {
    "analysis/ethanol.py": "--output run",
    "openmm/ethanol_nvt.py": "--steps 4 --interval 2 --output run",
    "openmm/ethanol_box_npt.py": "--steps 26 --interval 2 --output run",
    "openmm/ethanol_in_water.py": "--steps 2 --interval 1 --box 1.9 --output run",
}
LAMMPS = {"lammps/in.ethanol": 2, "lammps/in.ethanol_box": 2}  # input file -> ranks
TRAIN = {"train/ethanol.yaml": "data.n_train=4 data.n_valid=2 train.epochs=1 train.warmup_steps=1"}
READ_BY_OTHERS = [
    "openmm/ethanol.xml",
    *(f"lammps/{name}" for name in ("data.ethanol", "data.ethanol_box", "ethanol.pdb", "ethanol_box.pdb")),
]


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    """A copy of simulations/, and a working folder beside it."""
    shutil.copytree(SIMULATIONS, tmp_path / "simulations")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "simulations"


def present() -> list[str]:
    """Every input of simulations/; data and documents are not inputs."""
    files = (path.relative_to(SIMULATIONS) for path in SIMULATIONS.rglob("*") if path.is_file())
    return sorted(
        str(path) for path in files if path.suffix not in (".md", ".pyc") and path.parts[0] != "data"
    )


def test_every_input_is_run():
    assert present() == sorted([*PYTHON, *LAMMPS, *TRAIN, *READ_BY_OTHERS])


def test_the_table_lists_every_input():
    table = (SIMULATIONS / "README.md").read_text()
    assert [name for name in [*PYTHON, *LAMMPS, *TRAIN] if f"[{name}]({name})" not in table] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", PYTHON)
def test_python_script(name, copy):
    command = [sys.executable, str(copy / name), *PYTHON[name].split()]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert any(path.stat().st_size for path in Path("run").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", LAMMPS)
def test_lammps_input(name, copy):
    system = Path(name).suffix.removeprefix(".")
    variables = {"model": resolve_model("ethanol-rmd17"), "steps": 4, "every": 2}
    done = lammps.run(copy / name, copy / "lammps", LAMMPS[name], variables)
    assert done.returncode == 0, done.stdout + done.stderr
    files = [str(copy / "lammps" / f"{system}.{kind}") for kind in ("dump", "pdb", "log")]
    assert cli.main(["analyze", files[0], "--top", files[1], "--log", files[2], "-o", "report"]) == 0
    assert json.loads(Path("report/report.json").read_text())["stable"]


@pytest.mark.parametrize("name", TRAIN)
def test_training_file(name, copy):
    assert cli.main(["train", str(copy / name), *TRAIN[name].split(), "-o", "run"]) == 0
    assert Path("run/best.ckpt").is_file()


@pytest.mark.slow
def test_demo(tmp_path):
    command = [sys.executable, "-m", "so3k_md.demo", "--steps", "40", "-o", str(tmp_path)]
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.rstrip().endswith("report.html")
    assert "LAMMPS, 2 ranks" in result.stdout
