"""LAMMPS with the compiled kernels, which files of models in float32 bring along."""

import copy

import numpy as np
import pytest
import torch
from lammps_runs import SINGLE_POINT, lammps_frame, read_single_point, run, setup, write_data
from so3lr_toys import so3lr_toy
from toys import structure, toy_model

from so3k_md.export import torchscript
from so3k_md.model import set_dtype

PLAIN = "so3k precision float64 device cpu"
KERNELS = "so3k precision float32 device cpu"


@pytest.fixture(scope="module", params=["so3krates-2022", "so3lr"])
def model(request):
    return toy_model() if request.param == "so3krates-2022" else so3lr_toy()


@pytest.fixture(scope="module")
def place(tmp_path_factory, model):
    """A model file in float32 and a box that is smaller than two cutoffs."""
    folder = tmp_path_factory.mktemp("kernels")
    single = set_dtype(copy.deepcopy(model), torch.float32)
    checks = torchscript.save(single, folder / "model.pt", "toy")
    assert "with kernels" in checks
    write_data(folder / "data.box", lammps_frame(structure("triclinic")))
    return folder


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_forces_are_as_near_to_float64_as_float32_allows(place, ranks):
    atoms = lammps_frame(structure("triclinic"))
    outputs = {}
    for name, style in (("plain", PLAIN), ("kernels", KERNELS)):
        words = setup(atoms, "data.box", "model.pt", style) + SINGLE_POINT.format(name=f"{name}{ranks}")
        outputs[name] = run(place, words, ranks)
    assert "float32 with compiled kernels on cpu" in outputs["kernels"]
    assert "kernels" not in outputs["plain"].split("so3k: model")[1].splitlines()[0]
    plain, fast = (read_single_point(place, f"{name}{ranks}") for name in outputs)
    largest = np.abs(plain.forces).max()
    assert largest > 0.1
    np.testing.assert_allclose(fast.forces, plain.forces, rtol=0, atol=2e-5 * largest)
    np.testing.assert_allclose(fast.energies, plain.energies, rtol=0, atol=1e-5 * (1 + largest))
    np.testing.assert_allclose(fast.virial, plain.virial, rtol=0, atol=1e-4 * np.abs(plain.virial).max())
