"""The ASE calculator says what the model says, with the derivatives and refusals that ASE expects."""

import copy
from dataclasses import replace

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.calculators.mixing import LinearCombinationCalculator
from ase.md.verlet import VelocityVerlet
from ase.stress import full_3x3_to_voigt_6_stress
from so3lr_toys import so3lr_toy, water_dimer
from toys import STRUCTURES, ethanols, loud, pytorch, save_toy, structure, toy_model

from so3k_md import So3krates
from so3k_md.data import read_frames
from so3k_md.engines.ase import So3kCalculator
from so3k_md.errors import So3kError
from so3k_md.evaluate import predict


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    return save_toy(tmp_path_factory.mktemp("model") / "toy.pt")


@pytest.mark.parametrize("name", STRUCTURES)
def test_equals_pytorch(model_file, name):
    atoms = structure(name)
    atoms.calc = So3kCalculator(model_file)
    expected = pytorch(atoms)
    assert atoms.get_potential_energy() == pytest.approx(expected.energy.item(), rel=1e-13)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    assert atoms.get_potential_energies().sum() == pytest.approx(expected.energy.item(), rel=1e-13)
    np.testing.assert_allclose(atoms.get_forces(), expected.forces, atol=1e-12)
    if atoms.pbc.all():
        stress = -expected.virial[0].numpy() / atoms.get_volume()
        np.testing.assert_allclose(atoms.get_stress(), full_3x3_to_voigt_6_stress(stress), atol=1e-13)


@pytest.mark.parametrize("name", ["open", "triclinic", "small"])
def test_forces_and_stress_are_derivatives(name):
    atoms = structure(name)
    atoms.calc = So3kCalculator(toy_model())
    forces = atoms.get_forces()
    assert np.abs(forces).max() > 0.05
    some = slice(0, 4)
    numerical = calculate_numerical_forces(atoms, eps=1e-4, iatoms=range(len(atoms))[some])
    np.testing.assert_allclose(forces[some], numerical, atol=1e-6)
    if atoms.pbc.all():
        np.testing.assert_allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-4), atol=1e-7)


def test_slab_has_stress_and_open_axes_do_not_reach_through():
    atoms = ethanols(1, spacing=6.0)
    atoms.pbc = True, True, False
    atoms.calc = So3kCalculator(toy_model())
    thick = atoms.get_potential_energy()
    np.testing.assert_allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-4), atol=1e-7)
    atoms.cell[2, 2] = 0.0
    assert atoms.get_potential_energy() == thick
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


def test_open_structure_has_no_stress():
    atoms = structure("open")
    atoms.calc = So3kCalculator(toy_model())
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


@pytest.mark.filterwarnings("ignore:atoms .* closer than atoms in training data")  # of random motion
def test_kept_list_equals_new_lists_when_atoms_and_cell_change():
    atoms, rng = structure("triclinic"), np.random.default_rng(0)
    kept, fresh = So3kCalculator(toy_model(), skin=0.6), So3kCalculator(toy_model(), skin=0)
    for step in range(30):
        atoms.positions += 0.03 * rng.normal(size=atoms.positions.shape)
        if step % 4 == 1:
            atoms.set_cell(atoms.cell @ (np.eye(3) + 0.004 * rng.normal(size=(3, 3))), scale_atoms=True)
        if step % 5 == 2:
            atoms.wrap()
        if step == 20:
            del atoms[3]
        assert np.array_equal(kept.get_forces(atoms), fresh.get_forces(atoms))
        assert np.array_equal(kept.get_stress(atoms), fresh.get_stress(atoms))
    assert 2 <= kept.lists.near.builds < 15
    assert fresh.lists.near.builds == 30


@pytest.mark.filterwarnings("ignore:atoms .* closer than atoms in training data")  # of random motion
def test_energy_is_conserved():
    atoms = structure("periodic")
    atoms.calc = So3kCalculator(toy_model())
    thermal = np.sqrt(300 * units.kB / atoms.get_masses())[:, None]
    atoms.set_velocities(thermal * np.random.default_rng(1).normal(size=(len(atoms), 3)))
    energies = []
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()), interval=10)
    dynamics.run(100)
    kinetic = atoms.get_kinetic_energy()
    assert np.ptp(energies) < 1e-3 * kinetic
    assert atoms.calc.lists.near.builds < 30


def test_precision_and_ways_to_give_a_model(model_file):
    atoms = structure("triclinic")
    exact = So3kCalculator(model_file, dtype="float64").get_forces(atoms)
    single = So3kCalculator(model_file, dtype=torch.float32).get_forces(atoms)
    assert 1e-9 < np.abs(single - exact).max() < 1e-3
    np.testing.assert_allclose(So3kCalculator(toy_model()).get_forces(atoms), exact, atol=1e-12)


def nan_atoms():
    atoms = structure("open")
    atoms.positions[4, 1] = np.nan
    return atoms


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms("CN", positions=[[0, 0, 0], [0, 0, 1.2]]), r"atom 1 is N, the model knows only H, C, O"),
        (nan_atoms(), r"atom 4 is at .*nan.*finite"),
        (Atoms(), r"no atoms"),
        (Atoms("H", pbc=True), r"cell"),
    ],
)
def test_unusable_structures_are_refused_in_one_line(atoms, message):
    with pytest.raises(So3kError, match=message) as error:
        So3kCalculator(toy_model()).get_potential_energy(atoms)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "absent.pt"}, "no model file absent.pt"),
        ({"dtype": "float16"}, "float16"),
        ({"device": "abacus"}, "abacus"),
        ({"skin": -1.0}, "skin"),
    ],
)
def test_unusable_arguments_are_refused(model_file, arguments, message):
    with pytest.raises(So3kError, match=message):
        So3kCalculator(**{"model": model_file} | arguments)


def test_repulsion_is_a_part_of_a_model_without_charges():
    atoms = structure("open")
    atoms.calc = So3kCalculator(loud(So3krates(replace(toy_model().config, zbl=True), [1, 6, 8], seed=3)))
    atoms.get_forces()
    parts = atoms.calc.results["energy_parts"]
    assert parts["repulsion"] > 0.01
    assert sum(parts.values()) == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    assert parts["electrostatics"] == parts["dispersion"] == 0
    np.testing.assert_allclose(
        atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), rtol=0, atol=1e-5
    )


def test_two_calculators_of_one_model_keep_their_forms():
    atoms, model = water_dimer(), copy.deepcopy(so3lr_toy())
    first, second = (So3kCalculator(model, coulomb=form) for form in ("kspace", "shifted"))
    alone = [So3kCalculator(copy.deepcopy(model), coulomb=form) for form in ("kspace", "shifted")]
    energies = [calculator.get_potential_energy(atoms) for calculator in (*alone, first, second, first)]
    assert energies[2:4] == energies[:2]
    assert abs(energies[0] - energies[1]) > 1e-3
    assert first.results["coulomb"] == "kspace"
    mixed = LinearCombinationCalculator([first, second], [1, -1])
    assert mixed.get_potential_energy(atoms) == pytest.approx(energies[0] - energies[1], abs=1e-12)
    atoms.calc = first
    assert atoms.get_properties(["energy", "charges"])["energy"] == energies[0]
    assert sum(first.get_property("energy_parts", atoms).values()) == pytest.approx(energies[0], abs=1e-9)


def test_eval_names_the_slab_that_a_lattice_sum_cannot_do(tmp_path):
    atoms = water_dimer()
    atoms.set_cell([9.0, 9.0, 30.0])
    atoms.pbc = [True, True, False]
    ase.io.write(tmp_path / "slab.xyz", [water_dimer(), atoms])
    with pytest.raises(So3kError, match=r"slab.xyz.*frame 1: is periodic along some axes only"):
        list(predict(so3lr_toy(), read_frames(tmp_path / "slab.xyz")))
