"""Everything in simulations/, and the demo, runs as it stands: a few steps with the models that come along.

Those of SO3LR, whose weights do not, run with a small model of the same form.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest

from so3k_md import ModelConfig, So3krates, cli
from so3k_md.analysis.dipoles import read_dipoles
from so3k_md.checkpoint import resolve_model
from so3k_md.engines import lammps
from so3k_md.export.torchscript import save

ROOT = Path(__file__).parents[1]
SIMULATIONS = ROOT / "simulations"

# How each file is run for a few steps, inside an empty folder to which simulations/ has been copied.
PYTHON = {
    "analysis/ethanol.py": "--output run",
    "openmm/ethanol_nvt.py": "--steps 4 --interval 2 --output run",
    "openmm/ethanol_box_npt.py": "--steps 26 --interval 2 --output run",
    "openmm/ethanol_in_water.py": "--steps 2 --interval 1 --box 1.9 --output run",
    "openmm/cumulene_nvt.py": "--steps 4 --interval 2 --output run",
}
# input file -> shipped model, ranks
LAMMPS = {
    "lammps/in.ethanol": ("ethanol-rmd17", 2),
    "lammps/in.ethanol_box": ("ethanol-rmd17", 2),
    "lammps/in.cumulene": ("cumulene-sphc", 3),
    "lammps/in.ethanol_in_water": ("ethanol-rmd17", 2),
}
# system -> how it is run for a few steps
SO3LR = {
    "water": "--steps 26 --interval 2 --kelvin 10",
    "alanine": "--ensemble nve --warm-up 2 --steps 4 --interval 1",
    "alanine_water": "--steps 2 --interval 1",
    "acetate_water": "--steps 2 --interval 1 --coulomb shifted+self",
    "crambin_water": "--steps 2 --interval 1",
}
SO3LR_INPUTS = ["openmm/so3lr.py", "lammps/in.so3lr", "analysis/so3lr_maps.py"]  # run by tests of their own
AFTER_RUNS = ["analysis/cumulene.py"]  # need trajectories: test_torsions_of_both_engines
FEW = "data.n_train=4 data.n_valid=2 train.epochs=1 train.warmup_steps=1 train.batch_size=2"
TRAIN = [f"train/{name}.yaml" for name in ("ethanol", "cumulene-local", "cumulene-sphc", "cumulene-efa")]
INPUTS = [*PYTHON, *LAMMPS, *TRAIN, *AFTER_RUNS, *SO3LR_INPUTS]
WRITTEN = ("water", "alanine", "alanine_water", "acetate_water")  # by so3lr_systems.py, for LAMMPS
SYSTEMS = ("ethanol", "ethanol_box", "cumulene", *WRITTEN)
READ_BY_OTHERS = [
    "openmm/ethanol.xml",
    "openmm/so3lr_systems.py",
    "lammps/data.ethanol_in_water",
    "lammps/ethanol_in_water.pdb",
    *(f"lammps/{kind.format(name)}" for kind in ("data.{}", "{}.pdb") for name in SYSTEMS),
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
    assert present() == sorted([*INPUTS, *READ_BY_OTHERS])


def test_the_table_lists_every_input():
    table = (SIMULATIONS / "README.md").read_text()
    assert [name for name in INPUTS if f"[{name}]({name})" not in table] == []


def run_python(script: Path, words: str) -> str:
    """Run a script and return what it prints."""
    result = subprocess.run([sys.executable, str(script), *words.split()], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def run_lammps(copy: Path, name: str, ranks: int, /, **variables: object) -> None:
    done = lammps.run(copy / name, copy / "lammps", ranks, variables)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", PYTHON)
def test_python_script(name, copy):
    run_python(copy / name, PYTHON[name])
    assert any(path.stat().st_size for path in Path("run").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", LAMMPS)
def test_lammps_input(name, copy):
    system = Path(name).suffix.removeprefix(".")
    model, ranks = LAMMPS[name]
    run_lammps(copy, name, ranks, model=resolve_model(model), steps=4, every=2)
    files = [str(copy / "lammps" / f"{system}.{kind}") for kind in ("dump", "pdb", "log")]
    assert cli.main(["analyze", files[0], "--top", files[1], "--log", files[2], "-o", "report"]) == 0
    assert json.loads(Path("report/report.json").read_text())["stable"]


@pytest.mark.slow
def test_a_run_and_its_restart_have_each_frame_and_row_once(copy):
    script, steps = copy / "openmm/cumulene_nvt.py", "--model cumulene-local --steps 4 --interval 2"
    run_python(script, f"{steps} --output first")
    run_python(script, f"{steps} --restart first/state.xml --output second")
    tables = [np.loadtxt(f"{run}/log.csv", delimiter=",") for run in ("first", "second")]
    assert np.concatenate(tables)[:, 0].tolist() == [2, 4, 6, 8]
    paths = [mdtraj.load(f"{run}/trajectory.dcd", top=f"{run}/topology.pdb") for run in ("first", "second")]
    assert [path.n_frames for path in paths] == [2, 2]
    frames = np.concatenate([path.xyz for path in paths])
    moved = np.abs(np.diff(frames, axis=0)).max(axis=(1, 2))  # nm in 1 fs: no frame twice, none left out
    assert (moved > 1e-5).all()
    assert moved[1] < 3 * max(moved[0], moved[2])


@pytest.mark.slow
def test_torsions_of_both_engines(copy):
    """The same start in OpenMM and LAMMPS; both go on from a restart; one picture of all runs."""
    script, model = copy / "openmm/cumulene_nvt.py", resolve_model("cumulene-local")
    run_python(script, "--model cumulene-local --steps 4 --interval 2 --output openmm")
    run_python(script, "--model cumulene-local --steps 2 --interval 1 --restart openmm/state.xml --output on")
    run_lammps(copy, "lammps/in.cumulene", 2, model=model, steps=4, every=2)
    on = {"start": "read_restart cumulene.restart", "name": "on"}
    run_lammps(copy, "lammps/in.cumulene", 1, model=model, steps=2, every=1, **on)
    table = np.loadtxt("on/log.csv", delimiter=",")
    assert table[:, 0].tolist() == [5, 6]
    runs = "openmm=openmm/trajectory.dcd lammps={0}/cumulene.dump on={0}/on.dump".format(copy / "lammps")
    words = f"{runs} --top {copy / 'lammps/cumulene.pdb'} --skip 0 --output torsion"
    assert "⟨cos 2θ⟩" in run_python(copy / "analysis/cumulene.py", words)
    found = json.loads(Path("torsion/torsion.json").read_text())
    start = np.array(found["lammps"]["theta_degrees"][0])
    assert start == pytest.approx([5, 25, 50, 70, 95, 115, 140, 160], abs=0.1)
    # frames of 1 fs: OpenMM's trajectory begins after the first, LAMMPS' with the start
    assert found["openmm"]["theta_degrees"][0] == pytest.approx(start, abs=5)
    assert found["on"]["theta_degrees"][0] == pytest.approx(found["lammps"]["theta_degrees"][-1], abs=0.1)
    assert Path("torsion/torsion.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def so3lr(tmp_path_factory) -> Path:
    """A model of SO3LR's form, exported, with weak forces that hold nothing together."""
    small = {"features": 16, "heads": 2, "layers": 1, "n_rbf": 8, "radial_hidden": 16, "chi_hidden": 8}
    # atoms that nothing binds must not repel each other either
    config = replace(ModelConfig.preset("so3lr"), **small, zbl=False)
    model = So3krates(config, [1, 6, 7, 8, 16], seed=3).requires_grad_(False).eval()
    model.energies.head.scale.fill_(0.01)
    model.energies.physics.charge_head.table[8] = -0.1
    path = tmp_path_factory.mktemp("model") / "so3lr.pt"
    save(model, path, "small")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("system", SO3LR)
def test_so3lr_in_openmm(system, copy, so3lr):
    said = run_python(copy / "openmm/so3lr.py", f"{system} --model {so3lr} {SO3LR[system]} --output run")
    assert "coulomb: " + ("shifted+self" if "shifted" in SO3LR[system] else "kspace") in said
    assert ("total charge -1 e in 208 fragments" in said) == (system == "acetate_water")
    assert len(read_dipoles("run/physics.csv").dipole) >= 2
    if system != "crambin_water":
        words = "analyze run/trajectory.dcd --top run/topology.pdb --log run/log.csv -o report"
        assert cli.main(words.split()) == 0
        assert len(json.loads(Path("report/report.json").read_text())["trajectories"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "ensemble", "ranks"),
    [("water", "nve", 3), ("alanine", "nvt", 1), ("alanine_water", "npt", 2), ("acetate_water", "npt", 2)],
)
def test_so3lr_in_lammps(system, ensemble, ranks, copy, so3lr):
    few = {"steps": 4, "every": 2, "relax": 1, "kelvin": 10}
    run_lammps(copy, "lammps/in.so3lr", ranks, model=so3lr, system=system, ensemble=ensemble, **few)
    files = [str(copy / "lammps" / f"{system}.{kind}") for kind in ("dump", "pdb", "log", "dipole")]
    fragments = 208 if system == "acetate_water" else 1
    assert f"charge is conserved in each of {fragments} fragment" in Path(files[2]).read_text()
    assert cli.main(["analyze", files[0], "--top", files[1], "--log", files[2], "-o", "report"]) == 0
    assert json.loads(Path("report/report.json").read_text())["stable"]
    assert read_dipoles(files[3], 0.5).interval == pytest.approx(0.002)


@pytest.mark.slow
def test_maps_of_so3lr(copy, so3lr):
    script = copy / "analysis/so3lr_maps.py"
    run_python(copy / "openmm/so3lr.py", f"alanine --model {so3lr} --steps 2 --interval 1 --output run")
    run = "--trajectory run/trajectory.dcd --top run/topology.pdb"
    assert "lowest at φ" in run_python(script, f"--model {so3lr} --points 2 {run} --output maps")
    found = json.loads(Path("maps/maps.json").read_text())
    assert np.min(found["ramachandran"]["kcal_mol"]) == 0
    exact, other = (np.array(found["water_dimer"]["kcal_mol"][form]) for form in ("kspace", "shifted+self"))
    near = np.array(found["water_dimer"]["distance_angstrom"]) < 4
    assert exact[near] == pytest.approx(other[near], abs=0.05)
    for name in ("water_dimer", "ramachandran"):
        assert Path(f"maps/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_files_for_lammps_are_those_that_the_script_writes(tmp_path):
    run_python(SIMULATIONS / "openmm/so3lr_systems.py", f"--output {tmp_path}")
    for name in [*(f"data.{system}" for system in WRITTEN), *(f"{system}.pdb" for system in WRITTEN)]:
        texts = [(folder / name).read_text().splitlines() for folder in (tmp_path, SIMULATIONS / "lammps")]
        new, old = ([line for line in text if not line.startswith("REMARK")] for text in texts)
        assert new == old, name


@pytest.mark.parametrize("name", TRAIN)
def test_training_file(name, copy):
    assert cli.main(["train", str(copy / name), *FEW.split(), "-o", "run"]) == 0
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
