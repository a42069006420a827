"""The Hessian is the derivative of the forces, for every kind of model, and gives the vibrations of ASE."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.optimize import BFGS
from ase.vibrations import Vibrations, VibrationsData
from nonlocal_models import NONLOCAL
from small_models import CONFIGS, lively
from so3lr_toys import ions, so3lr_toy, water_dimer, waters

from so3k_md.engines.ase import So3kCalculator
from so3k_md.model import So3krates, set_dtype

STEP = 5e-4  # Å


def calculator(name: str, **options) -> So3kCalculator:
    if name == "so3lr":
        model = so3lr_toy()
    else:
        config = (CONFIGS | NONLOCAL)[name]
        model = lively(set_dtype(So3krates(config, [1, 6, 7, 8]), torch.float64))
    return So3kCalculator(model, **options)


def ethanol() -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.positions += np.random.default_rng(1).normal(scale=0.05, size=(9, 3))
    return atoms


def water_box(n: int = 12) -> Atoms:
    """A triclinic cell in which atoms have pairs with images; one group."""
    atoms = waters(2, True)[:n]
    atoms.arrays["group"] = np.zeros(n, int)
    return atoms


def difference(calculator: So3kCalculator, atoms: Atoms, k: int) -> np.ndarray:
    """Row k of the Hessian by differences of the forces, with an error of order STEP⁴."""
    forces = []
    for step in (-2, -1, 1, 2):
        moved = atoms.copy()
        moved.positions.reshape(-1)[k] += step * STEP
        forces.append(calculator.get_property("forces", moved).ravel())
    return -(forces[0] - 8 * forces[1] + 8 * forces[2] - forces[3]) / (12 * STEP)


@pytest.mark.parametrize(
    ("name", "structure", "options"),
    [
        ("so3krates-2022", ethanol, {}),
        ("euclidean-2024", ethanol, {}),
        ("euclidean-2024", water_box, {}),
        ("all-options", ethanol, {}),
        ("sphc-2022", ethanol, {}),
        ("sphc-2024", ethanol, {}),
        ("efa-lebedev", ethanol, {}),
        ("efa-reciprocal", water_box, {}),
        ("so3lr", water_dimer, {}),
        ("so3lr", ions, {}),
        ("so3lr", water_box, {"cutoff_lr": 6.0}),
        ("so3lr", water_box, {"cutoff_lr": 6.0, "coulomb": "shifted"}),
        ("so3lr", water_box, {"cutoff_lr": 6.0, "coulomb": "shifted+self"}),
    ],
)
def test_hessian_is_the_derivative_of_the_forces(name, structure, options):
    atoms, calc = structure(), calculator(name, **options)
    n, found = len(atoms), calc.get_property("hessian", atoms)
    assert found.shape == (3 * n, 3 * n)
    largest = np.abs(found).max()
    for k in np.random.default_rng(2).choice(3 * n, size=8, replace=False):
        np.testing.assert_allclose(found[k], difference(calc, atoms, k), rtol=0, atol=3e-8 * largest)
    np.testing.assert_allclose(found, found.T, rtol=0, atol=1e-13 * largest)
    rigid = found.reshape(3 * n, n, 3).sum(1)  # a translation changes no force
    np.testing.assert_allclose(rigid, 0.0, atol=1e-12 * largest)


def test_hessian_is_of_the_atoms_given():
    atoms, calc = ethanol(), calculator("euclidean-2024")
    first = calc.get_property("hessian", atoms)
    assert calc.get_property("hessian", atoms) is first, "computed once"
    assert "hessian" not in calc.export_properties()
    moved = atoms.copy()
    moved.positions[0] += 0.1
    assert calc.get_property("hessian", moved, allow_calculation=False) is None
    assert np.abs(calc.get_property("hessian", moved) - first).max() > 1e-3
    np.testing.assert_array_equal(calc.get_property("hessian", atoms), first)


def test_single_precision_has_the_hessian_in_double():
    atoms = ethanol()
    single = So3kCalculator("ethanol-rmd17", dtype="float32").get_property("hessian", atoms)
    double = So3kCalculator("ethanol-rmd17", dtype="float64").get_property("hessian", atoms)
    assert single.dtype == np.float64
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-10)


def test_vibrations_of_ethanol_are_those_of_ase(tmp_path):
    atoms = molecule("CH3CH2OH")
    atoms.calc = So3kCalculator("ethanol-rmd17", dtype="float64")
    BFGS(atoms, logfile=None).run(fmax=1e-4, steps=300)
    found = VibrationsData.from_2d(atoms, atoms.calc.get_property("hessian", atoms)).get_frequencies()
    by_ase = Vibrations(atoms, name=str(tmp_path / "vib"), delta=1e-3, nfree=4)
    by_ase.run()
    expected = by_ase.get_frequencies()
    assert expected[-1].real > 3000  # the O-H stretch, 1/cm
    np.testing.assert_allclose(found[6:], expected[6:], rtol=0, atol=0.05)
