"""Engines of metatomic get what the ASE calculator says."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from small_models import CONFIGS, lively
from so3lr_toys import so3lr_toy, waters

from so3k_md.engines.ase import So3kCalculator
from so3k_md.errors import So3kError
from so3k_md.model import So3krates, set_dtype

pytest.importorskip("metatomic.torch", reason="metatomic-torch is not installed")

import metatomic.torch as mta  # noqa: E402
from metatensor.torch import Labels  # noqa: E402
from metatomic_ase import MetatomicCalculator  # noqa: E402

from so3k_md.engines.metatomic import atomistic_model  # noqa: E402


def toy(name: str) -> So3krates:
    return lively(set_dtype(So3krates(CONFIGS[name], [1, 6, 8]), torch.float64)).requires_grad_(False)


@pytest.mark.parametrize("name", ["euclidean-2024", "so3krates-2022"])
@pytest.mark.parametrize("structure", [lambda: molecule("CH3CH2OH"), lambda: waters(2, True)])
def test_results_are_those_of_the_calculator(tmp_path, name, structure):
    atomistic_model(toy(name)).save(str(tmp_path / "a.pt"))
    atoms: Atoms = structure()
    atoms.calc = So3kCalculator(toy(name))
    other = atoms.copy()
    other.calc = MetatomicCalculator(str(tmp_path / "a.pt"), check_consistency=True, device="cpu")
    assert other.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    np.testing.assert_allclose(other.get_forces(), atoms.get_forces(), atol=1e-10)
    np.testing.assert_allclose(other.get_potential_energies(), atoms.get_potential_energies(), atol=1e-10)
    if atoms.pbc.any():
        np.testing.assert_allclose(other.get_stress(), atoms.get_stress(), atol=1e-12)


def test_single_precision():
    atoms = molecule("CH3CH2OH")
    atoms.calc = So3kCalculator("ethanol-rmd17", dtype="float64")
    expected = atoms.get_forces()
    atoms.calc = MetatomicCalculator(atomistic_model("ethanol-rmd17", "float32"), device="cpu")
    np.testing.assert_allclose(atoms.get_forces(), expected, atol=1e-3)


def test_selected_atoms():
    """As engines ask that give each process a part of the atoms."""
    atoms, model = molecule("CH3CH2OH"), atomistic_model(toy("euclidean-2024"))
    calculator = MetatomicCalculator(model, device="cpu")
    atoms.calc = So3kCalculator(toy("euclidean-2024"))
    expected = np.tile(atoms.get_potential_energies(), (2, 1))
    chosen = [[0, 2], [0, 8], [1, 0]]
    selected = Labels(["system", "atom"], torch.tensor(chosen))
    for kind, wanted in (
        ("atom", [expected[k, i] for k, i in chosen]),
        ("system", [expected[0, 2] + expected[0, 8], expected[1, 0]]),
    ):
        outputs = {"energy": mta.ModelOutput(unit="eV", sample_kind=kind)}
        found = calculator.run_model([atoms, atoms], outputs, selected)["energy"].block()
        np.testing.assert_allclose(found.values.detach()[:, 0], wanted, atol=1e-11)
    with_forces = calculator.compute_energy([atoms, atoms], compute_forces_and_stresses=True)
    np.testing.assert_allclose(with_forces["forces"][1], atoms.get_forces(), atol=1e-10)


def test_what_metatomic_does_not_pass_on_is_refused():
    with pytest.raises(So3kError, match="local models without charges only"):
        atomistic_model(so3lr_toy())
