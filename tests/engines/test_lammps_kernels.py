"""LAMMPS with the compiled kernels, which files of models in float32 bring along."""

import copy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from ase import Atoms
from lammps_runs import SINGLE_POINT, lammps_frame, read_single_point, refused, run, setup, write_data
from so3lr_toys import so3lr_toy
from toys import mixture, nonlocal_toy, structure, toy_model

from so3k_md.export import torchscript
from so3k_md.model import set_dtype

# of which kernels, that keep one direction of a pair, know no parts
CENTROID = ("compute centroid all centroid/stress/atom NULL\n", " c_centroid[*]")
WITHOUT_CENTROID = SINGLE_POINT.replace(CENTROID[0], "").replace(CENTROID[1], "")
PLAIN = "so3k precision float64 device cpu"
KERNELS = "so3k precision float32 device cpu"


MODELS = {"so3krates-2022": toy_model, "so3lr": so3lr_toy, "sphc": lambda: nonlocal_toy("sphc")}


class Place(NamedTuple):
    """A model file in float32, and a data file."""

    folder: Path
    atoms: Atoms
    before: str  # commands before the data file is read


@pytest.fixture(scope="module", params=MODELS)
def place(tmp_path_factory, request) -> Place:
    """A box that is smaller than two cutoffs, or of molecules where the model asks for them."""
    folder = tmp_path_factory.mktemp("kernels")
    single = set_dtype(copy.deepcopy(MODELS[request.param]()), torch.float32)
    checks = torchscript.save(single, folder / "model.pt", "toy")
    assert "with kernels" in checks
    atoms, molecules, before = structure("triclinic"), None, ""
    if request.param == "sphc":
        atoms, molecules = mixture("triclinic")
        molecules, before = molecules + 1, "atom_style molecular\n"
    atoms = lammps_frame(atoms)
    write_data(folder / "data.box", atoms, molecules=molecules)
    return Place(folder, atoms, before)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_forces_are_as_near_to_float64_as_float32_allows(place, ranks):
    folder, atoms, before = place
    outputs = {}
    for name, style in (("plain", PLAIN), ("kernels", KERNELS)):
        words = setup(atoms, "data.box", "model.pt", style, before=before)
        words += WITHOUT_CENTROID.format(name=f"{name}{ranks}")
        outputs[name] = run(folder, words, ranks)
    assert "float32 with compiled kernels on cpu" in outputs["kernels"]
    assert "kernels" not in outputs["plain"].split("so3k: model")[1].splitlines()[0]
    plain, fast = (read_single_point(folder, f"{name}{ranks}") for name in outputs)
    largest = np.abs(plain.forces).max()
    assert largest > 0.1
    np.testing.assert_allclose(fast.forces, plain.forces, rtol=0, atol=2e-5 * largest)
    np.testing.assert_allclose(fast.energies, plain.energies, rtol=0, atol=1e-5 * (1 + largest))
    np.testing.assert_allclose(fast.virial, plain.virial, rtol=0, atol=1e-4 * np.abs(plain.virial).max())


def test_parts_of_directed_pairs_are_refused(place):
    folder, atoms, before = place
    words = setup(atoms, "data.box", "model.pt", KERNELS, before=before) + SINGLE_POINT.format(
        name="centroid"
    )
    error = refused(folder, words)
    assert error.startswith(
        "so3k: centroid/stress/atom needs the plain layers, toy runs compiled kernels: use"
    )
