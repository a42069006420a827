"""What users get wrong with models that attend beyond the cutoff: one clear line, and what remedies it."""

import re

import numpy as np
import pytest
import torch
from lammps_runs import SINGLE_POINT, read_single_point, refused, run, setup, write_data
from test_lammps_nonlocal import expected, nonlocal_structure
from toys import nonlocal_toy

from so3k_md.export.torchscript import archive, script
from so3k_md.needs import with_needs

NO_MOLECULES = (
    "so3k model unnamed has non-local attention within molecules, and atom_style atomic has no molecule "
    r"ids: use atom_style full, bond or molecular, or pair_style so3k ... groups all"
)
TORN = (
    r"so3k: molecule \d is not whole: by their image flags atom \d+ and an atom bonded to it are in "
    "different images: correct the flags in the data file, or give coordinates of whole molecules, which "
    "read_data wraps into the box"
)
LARGE = (
    r"so3k: {} has {} atoms, more than max_group = 10: attention in it takes {} pairs per layer and \S+ GiB "
    r"on each rank that owns some of its atoms; raise max_group if that is intended, give each molecule its "
    "id, or use a model with nonlocal: efa"
)
WIDE = (
    r"so3k failed at step 0: molecule 1000000 is \d\d\.\d+ A wide, more than efa_reach = 18 A of the model: "
    "use smaller groups, or a model with a larger efa_reach"
)
OPEN = (
    "so3k model unnamed has waves of the reciprocal lattice: use a box that is periodic in all directions, "
    "'boundary p p p'"
)
UNKNOWN = (
    r"so3k cannot use other.pt \(this plugin has no non-local attention of kind 'other'\): write a model "
    "with 'so3k-md export CHECKPOINT -o other.pt'"
)
# structure, model, what is done to a good input: the word and what stands in its place; and the answer
ATOMIC = "molecular\nread_data data", "atomic\nread_data atomic"
ALL = "the group of all atoms"
CASES = {
    "no molecule ids": ("ions", "sphc", *ATOMIC, NO_MOLECULES),
    "torn": ("ions", "sphc", "data.ions", "data.torn", TORN),
    "large": ("ions", "sphc", "float64", "float64 max_group 10", LARGE.format("molecule 1", 14, "1.8e.02")),
    "all": ("open", "sphc", "float64", "float64 groups all max_group 10", LARGE.format(ALL, 29, "8.1e.02")),
    "wide": ("chain", "efa", "", "", WIDE),
    "open": ("open", "reciprocal", "", "", OPEN),
    "kind": ("ions", "sphc", "sphc.pt", "other.pt", UNKNOWN),
    "groups": ("ions", "sphc", "float64", "float64 groups each", ".*does not know 'groups each'.*"),
    "max_group": ("ions", "sphc", "float64", "float64 max_group many", ".*does not know 'max_group many'.*"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Good models and data files, and bad ones."""
    folder = tmp_path_factory.mktemp("bad-nonlocal")
    for kind in ("sphc", "efa", "reciprocal"):
        (folder / f"{kind}.pt").write_bytes(archive(script(nonlocal_toy(kind))))
    other = torch.jit.load(str(folder / "sphc.pt"))
    with_needs(other, nonlocal_kind="other")
    (folder / "other.pt").write_bytes(archive(other))
    for name in ("ions", "open", "chain"):
        atoms, molecules = nonlocal_structure(name)
        write_data(folder / f"data.{name}", atoms, molecules=molecules)
        write_data(folder / f"atomic.{name}", atoms)
    text = (folder / "data.ions").read_text()
    torn = re.sub(r"^((?:\S+ ){5}\S+)(?: -?\d+){3}$", r"\1", text, flags=re.M)
    (folder / "data.torn").write_text(torn)
    atoms, molecules = nonlocal_structure("ions")
    write_data(folder / "data.whole", atoms, molecules=molecules, wrap=False)
    return folder


def commands(name: str, kind: str) -> str:
    """An input that ends before it runs."""
    return setup(nonlocal_structure(name)[0], f"data.{name}", f"{kind}.pt", before="atom_style molecular\n")


@pytest.mark.parametrize("case", CASES)
def test_is_refused_in_one_line(folder, case):
    name, kind, good, bad, message = CASES[case]
    text = commands(name, kind)
    assert good in text
    error = refused(folder, text.replace(good, bad) + "run 0\n")
    assert re.fullmatch(message, error), error


def test_whole_molecules_need_no_flags(folder):
    """The remedy that the message names."""
    text = commands("ions", "sphc").replace("data.ions", "data.whole")
    run(folder, text + SINGLE_POINT.format(name="whole"), 2)
    forces = read_single_point(folder, "whole").forces
    np.testing.assert_allclose(forces, expected("sphc", "ions").forces, rtol=0, atol=1e-10)


def test_waves_of_the_lattice_do_not_know_images(folder):
    text = commands("ions", "reciprocal").replace("data.ions", "data.torn")
    run(folder, text + SINGLE_POINT.format(name="torn"), 2)
    found, known = read_single_point(folder, "torn"), expected("reciprocal", "ions")
    np.testing.assert_allclose(found.forces, known.forces, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.virial[:3], np.diag(known.virial[0]), rtol=0, atol=1e-9)


def test_every_frame_of_a_rerun_is_looked_at(folder):
    """Wrapped coordinates without flags, with molecules across another wall than in the data file."""
    text = commands("ions", "sphc")
    script = text + (
        "dump first all custom 1 first.dump id type x y z\nrun 0\nundump first\nreset_timestep 1\n"
        "displace_atoms all move 2.1 2.7 3.3\ndump second all custom 1 second.dump id type x y z\nrun 0\n"
    )
    error = refused(folder, script + "clear" + text + "rerun first.dump second.dump dump x y z\n")
    assert re.search("is not whole", error), error
