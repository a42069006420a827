"""`so3k_md.evaluate_atoms` gives what the ASE calculator gives, for many structures at once."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.stress import full_3x3_to_voigt_6_stress
from nonlocal_models import NONLOCAL
from small_models import CONFIGS, lively

import so3k_md
from so3k_md.engines.ase import So3kCalculator
from so3k_md.errors import So3kError
from so3k_md.model import So3krates, set_dtype
from so3k_md.structure import pairs

sys.path.append(str(Path(__file__).parent / "engines"))
from so3lr_toys import ammonium, ions, so3lr_toy, water_dimer, waters


def toy(name: str) -> So3krates:
    if name == "so3lr":
        return so3lr_toy()
    config = (CONFIGS | NONLOCAL)[name]
    return lively(set_dtype(So3krates(config, [1, 6, 7, 8]), torch.float64)).eval().requires_grad_(False)


def structures(name: str) -> list[Atoms]:
    """Open and periodic ones of different sizes, some with groups, charges and fragments."""
    if name == "so3lr":
        return [water_dimer(), ammonium(), waters(2), ions(), waters(2, True)]
    rng = np.random.default_rng(1)
    made = [molecule(kind) for kind in ("CH3CH2OH", "H2O", "C6H6", "CO2")]
    for atoms in made:
        atoms.positions += rng.normal(scale=0.05, size=(len(atoms), 3))
    if "lebedev" in name or name not in NONLOCAL:
        made.append(waters(2))
        made[-1].arrays["group"] = np.repeat(np.arange(8), 3)
    return made


@pytest.mark.parametrize("kernels", ["off", "auto"])
@pytest.mark.parametrize("name", ["euclidean-2024", "sphc-2024", "efa-lebedev", "so3lr"])
def test_results_are_those_of_the_calculator(name, kernels):
    model, made = toy(name), structures(name)
    before = copy.deepcopy(made)
    for size in (1, 3, 100):
        for atoms, found in zip(
            made, so3k_md.evaluate_atoms(model, made, batch_size=size, kernels=kernels), strict=True
        ):
            alone = atoms.copy()
            alone.calc = So3kCalculator(model, kernels=kernels)
            assert found.energy == pytest.approx(alone.get_potential_energy(), rel=1e-12)
            np.testing.assert_allclose(found.forces, alone.get_forces(), atol=1e-10)
            np.testing.assert_allclose(found.energies, alone.get_potential_energies(), atol=1e-10)
            assert (found.stress is None) == (not atoms.pbc.any())
            if found.stress is not None:
                stress = full_3x3_to_voigt_6_stress(found.stress)
                np.testing.assert_allclose(stress, alone.get_stress(), atol=1e-12)
            assert (found.physics is None) == (name != "so3lr")
            if found.physics is not None:
                np.testing.assert_allclose(found.physics.charges, alone.get_charges(), atol=1e-12)
                np.testing.assert_allclose(found.physics.dipole, alone.get_dipole_moment(), atol=1e-10)
    assert made == before, "the structures stay as they are"


def test_errors_name_the_structure():
    overlapping = Atoms("OH", np.zeros((2, 3)))
    with pytest.raises(So3kError, match="the structures, frame 1: atoms 0 and 1"):
        so3k_md.evaluate_atoms(toy("euclidean-2024"), [molecule("H2O"), overlapping])


def test_names_of_bundled_models():
    found = so3k_md.evaluate_atoms("ethanol-rmd17", [molecule("CH3CH2OH")] * 2, dtype="float64")
    assert found[0].energy == found[1].energy


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("cutoff", [0.5, 2.0, 100.0])
def test_few_atoms_have_the_pairs_of_a_search(monkeypatch, once, cutoff):
    rng = np.random.default_rng(3)
    for n in (1, 2, 20, pairs.FEW):
        arguments = rng.normal(size=(n, 3), scale=2.0), None, False, cutoff, once
        few = pairs.neighbor_pairs(*arguments)
        with monkeypatch.context() as patched:
            patched.setattr(pairs, "FEW", 0)
            found = pairs.neighbor_pairs(*arguments)
        as_sets = [
            {
                tuple(sorted(pair)) if once else pair
                for pair in zip(*map(np.ndarray.tolist, p[:2]), strict=True)
            }
            for p in (few, found)
        ]
        assert as_sets[0] == as_sets[1]
        assert len(few[0]) == len(found[0]) == len(as_sets[0])
        assert (np.diff(few[0]) >= 0).all()
        assert not few[2].any()
