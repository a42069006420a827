"""pair_style so3k in other units, in other precision, and beside other pair styles."""

import re
import subprocess

import numpy as np
import pytest
from ase import Atoms
from lammps_runs import SINGLE_POINT, lammps_frame, read_single_point, run, setup, write_data
from toys import pytorch, save_toy, structure

from so3k_md import builds
from so3k_md.builds import tool
from so3k_md.engines import lammps
from so3k_md.export.contract import ATTRIBUTES, FORMAT_VERSION, KERNEL_FILES, NONLOCAL_STAGES, STAGES
from so3k_md.needs import Needs
from so3k_md.units import EV_IN_KJ_MOL, KJ_IN_KCAL

BOX = "triclinic"
LJ = "pair_coeff {types} lj/cut 0.01 2.5 4.0\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model and data files: ethanol molecules alone, and with two argon atoms of a fourth type."""
    folder = tmp_path_factory.mktemp("styles")
    save_toy(folder / "toy.pt")
    write_data(folder / "data.box", box())
    mixed = box() + Atoms("ArAr", positions=[[5, 5, 5], [2, 1, 2.5]])
    write_data(folder / "data.mixed", mixed, ("H", "C", "O", "Ar"))
    return folder


def box() -> Atoms:
    """Eight ethanol molecules in a triclinic box."""
    return lammps_frame(structure(BOX))


def test_real_units_are_metal_units_converted(folder):
    metal = setup(box(), "data.box", "toy.pt") + SINGLE_POINT.format(name="metal")
    real = "\nclear\n" + setup(box(), "data.box", "toy.pt", units="real") + SINGLE_POINT.format(name="real")
    run(folder, metal + real, 2)
    metal, real = (read_single_point(folder, name) for name in ("metal", "real"))
    factor = real.energy / metal.energy
    # LAMMPS' own factor, which its real units need to be consistent, is rounded
    assert factor == pytest.approx(EV_IN_KJ_MOL / KJ_IN_KCAL, rel=1e-7)
    np.testing.assert_allclose(real.forces, metal.forces * factor, rtol=0, atol=1e-10)
    np.testing.assert_allclose(real.energies, metal.energies * factor, rtol=1e-10)
    # atm and 1 / (kcal/mol/Å³) instead of bar and 1 / (eV/Å³)
    np.testing.assert_allclose(real.virial * 1.6021765e6 / 68568.415, metal.virial * factor, rtol=1e-7)


def test_float32(folder):
    style = "so3k precision float32 device cpu"
    run(folder, setup(box(), "data.box", "toy.pt", style) + SINGLE_POINT.format(name="float32"), 2)
    single, double = read_single_point(folder, "float32"), pytorch(box())
    forces = double.forces.numpy()
    np.testing.assert_allclose(single.forces, forces, rtol=0, atol=1e-3 * np.abs(forces).max())
    assert np.abs(single.forces - forces).max() > 1e-9, "this was not single precision"
    # energies are summed in double: what single precision costs is a part of each atom's binding energy
    assert single.energy == pytest.approx(double.energy.item(), abs=1e-3)


@pytest.mark.parametrize("ranks", [1, 2])
def test_hybrid_overlay_adds(folder, ranks):
    """so3k for ethanol and Lennard-Jones for all: the argon atoms are NULL to the model."""
    overlay = "hybrid/overlay so3k precision float64 device cpu lj/cut 6.0"
    script = setup(box(), "data.mixed", "so3k toy.pt", overlay).rstrip() + " NULL\n"
    script += LJ.format(types="* *") + SINGLE_POINT.format(name=f"both{ranks}")
    alone = "\nclear\nboundary p p p\nunits metal\nread_data data.mixed\npair_style lj/cut 6.0\n"
    alone += LJ.format(types="* *").replace("lj/cut ", "") + SINGLE_POINT.format(name=f"lj{ranks}")
    run(folder, script + alone, ranks)
    both, lj = (read_single_point(folder, f"{name}{ranks}") for name in ("both", "lj"))
    model = pytorch(box())
    n = len(box())
    assert both.energy - lj.energy == pytest.approx(model.energy.item(), rel=1e-9)
    np.testing.assert_allclose((both.forces - lj.forces)[:n], model.forces, atol=1e-8)
    np.testing.assert_allclose((both.forces - lj.forces)[n:], 0.0, atol=1e-9)
    np.testing.assert_allclose((both.virials - lj.virials).sum(0)[:3], np.diag(model.virial[0]), atol=1e-8)


def test_two_models_at_once(folder):
    """Settings of torch and of each model stay apart."""
    script = setup(
        box(), "data.box", "so3k 1 toy.pt", "hybrid/overlay so3k precision float64 so3k precision float32"
    )
    script += "pair_coeff * * so3k 2 toy.pt H C O\n" + SINGLE_POINT.format(name="twice")
    run(folder, script)
    twice = read_single_point(folder, "twice")
    np.testing.assert_allclose(twice.forces, 2 * pytorch(box()).forces, atol=1e-3)


def test_style_and_coefficients_given_again(folder):
    script = setup(box(), "data.box", "toy.pt", "so3k precision float32") + "run 0\n"
    script += "pair_style so3k precision float64\npair_coeff * * toy.pt H C O\n"
    run(folder, script + SINGLE_POINT.format(name="again"))
    np.testing.assert_allclose(read_single_point(folder, "again").forces, pytorch(box()).forces, atol=1e-8)


def test_launcher_finds_the_plugin(folder):
    """`mpirun lmp` of the environment, with nothing set, loads the plugin."""
    (folder / "in.launcher").write_text(setup(box(), "data.box", "toy.pt") + "run 1\n")
    command = [
        tool("mpirun", "lammps"),
        "-np",
        "2",
        tool("lmp", "lammps"),
        "-in",
        "in.launcher",
        "-log",
        "launcher.log",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    log = (folder / "launcher.log").read_text()
    assert "so3k: model unnamed, 2 layers, cutoff 4 A, float64 on cpu, libtorch 2." in log


def plugins_in(monkeypatch, folder):
    """Plugins are looked for and built there, kernels where they are."""
    roots = builds.build_roots
    monkeypatch.setattr(builds, "build_roots", lambda kind: [folder] if kind == lammps.KIND else roots(kind))


def test_plugin_that_is_not_built(monkeypatch, capsys, tmp_path):
    plugins_in(monkeypatch, tmp_path)
    assert lammps.plugin_folder() == ""
    assert "so3k-md lammps build" in capsys.readouterr().err
    with pytest.raises(lammps.So3kError, match="not built .* 'so3k-md lammps build'"):
        lammps.require_plugin()


def test_build_of_missing_parts(monkeypatch, tmp_path):
    monkeypatch.setattr(lammps, "ABI", ("torch", "no-such-package"))
    with pytest.raises(
        lammps.So3kError, match=r"no-such-package is missing: pip install 'so3k-md\[lammps\]'"
    ):
        lammps.build_plugin()
    monkeypatch.undo()
    plugins_in(monkeypatch, tmp_path)
    monkeypatch.setenv("CXX", "/no/such/compiler")
    with pytest.raises(lammps.So3kError, match="CXX = /no/such/compiler is not a program.*unset it"):
        lammps.build_plugin()
    assert list(tmp_path.iterdir()) == []


def test_plugin_and_exporter_use_the_same_words():
    text = (lammps.source_folder() / "src" / "model.cpp").read_text()
    tables = re.search(r"const Stages (.*?);.*NONLOCAL = \{(.*?)\};\n", text, re.S)
    named = set(re.findall(r'"(\w+)"', "".join(tables.groups()))) - set(NONLOCAL_STAGES)
    unused = {"gradient", "sphc_pairs"}  # of engines that run the whole model at once, of analysis
    known = [*STAGES.values(), *(stages for table in NONLOCAL_STAGES.values() for stages in table.values())]
    assert named == {stage for stages in known for stage in stages} - unused
    fields = set(re.findall(r'need\("(\w+)"\)', text))
    assert fields == set(Needs._fields) - {"config"}
    assert [word for word in ATTRIBUTES if f'"{word}"' not in text] == ["form"]  # which only Python reads
    assert f"FORMAT_VERSION = {FORMAT_VERSION};" in text
    assert all(f'"{file}"' in text for file in KERNEL_FILES.values())


def test_built_plugin_is_kept():
    before = lammps.find_plugin()
    assert lammps.build_plugin() == before / lammps.PLUGIN
