"""The committee's calculator against separate calculators of its members."""

import copy
import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest
from ase import units
from ase.md.verlet import VelocityVerlet
from so3lr_toys import so3lr_toy, water_dimer
from toys import structure, toy_model

from so3k_md import So3krates
from so3k_md.engines.ase import So3kCalculator
from so3k_md.engines.ase_committee import So3kCommittee
from so3k_md.errors import So3kError, So3kWarning


def shaken(k):
    """The toy model with parameters that are larger by k percent."""
    model = copy.deepcopy(toy_model())
    for parameter in model.parameters():
        parameter.data *= 1 + 0.01 * k
    return model


@pytest.fixture(scope="module")
def models():
    return [shaken(k) for k in range(3)]


@pytest.mark.parametrize("name", ["open", "triclinic"])
def test_mean_and_deviations_of_separate_calculators(models, name):
    atoms = structure(name)
    atoms.calc = So3kCommittee(models)
    apart = [So3kCalculator(model) for model in models]
    forces = np.array([calc.get_property("forces", atoms) for calc in apart])
    energies = np.array([calc.get_property("energy", atoms) for calc in apart])
    np.testing.assert_allclose(atoms.get_forces(), forces.mean(0), atol=1e-12)
    assert atoms.get_potential_energy() == pytest.approx(energies.mean(), rel=1e-12)
    if atoms.pbc.all():
        stress = np.mean([calc.get_property("stress", atoms) for calc in apart], axis=0)
        np.testing.assert_allclose(atoms.get_stress(), stress, atol=1e-13)
    deviations = np.linalg.norm(forces.std(0), axis=1)
    assert deviations.max() > 1e-3
    results = atoms.calc.results
    np.testing.assert_allclose(results["forces_deviation"], deviations, atol=1e-12)
    assert results["max_force_deviation"] == results["forces_deviation"].max()
    assert results["energy_deviation"] == pytest.approx(energies.std() / len(atoms), abs=1e-12)


def test_charges_and_hessian_are_means():
    models = [so3lr_toy(), copy.deepcopy(so3lr_toy())]
    for parameter in models[1].parameters():
        parameter.data *= 1.02
    atoms = water_dimer()
    committee = So3kCommittee(models)
    for name in ("charges", "dipole", "hirshfeld_ratios", "hessian"):
        apart = [So3kCalculator(model).get_property(name, atoms) for model in models]
        assert np.abs(apart[0] - apart[1]).max() > 1e-6
        np.testing.assert_allclose(committee.get_property(name, atoms), np.mean(apart, axis=0), atol=1e-10)


def test_members_share_the_neighbor_list(models):
    atoms = structure("open")
    atoms.calc = So3kCommittee(models)
    VelocityVerlet(atoms, 0.5 * units.fs).run(3)
    assert atoms.calc.lists.near.builds >= 1
    assert [other.lists.near.builds for other in atoms.calc.others] == [0, 0]
    assert atoms.calc.calculations == 4


def test_thresholds(models):
    atoms = structure("open")
    calc = atoms.calc = So3kCommittee(models)
    atoms.get_forces()
    largest, atom = calc.results["max_force_deviation"], calc.results["forces_deviation"].argmax()
    atoms.calc = So3kCommittee(models, stop=0.9 * largest)
    for number in (1, 2):  # the refused structure is refused again
        with pytest.raises(So3kError, match=rf"{largest:.3g} eV/Å in the force on atom {atom}, .* {number};"):
            atoms.get_forces()
    atoms.calc = So3kCommittee(models, warn=0.9 * largest, stop=1.1 * largest)
    with pytest.warns(So3kWarning, match=f"atom {atom}"):
        atoms.get_forces()
    atoms.positions[0] += 1e-6
    with warnings.catch_warnings(action="error"):
        atoms.get_forces()


def test_copies(models):
    atoms = structure("open")
    committee = So3kCommittee(models)
    expected = committee.get_property("forces", atoms)
    for other in (copy.deepcopy(committee), pickle.loads(pickle.dumps(committee))):
        other.reset()
        np.testing.assert_allclose(other.get_property("forces", atoms), expected, atol=1e-12)


def test_refusals(models):
    for few in (models[:1], models[0], "a.pt"):
        with pytest.raises(So3kError, match="list of at least two"):
            So3kCommittee(few)
    with pytest.raises(So3kError, match="stop is -1"):
        So3kCommittee(models, stop=-1)
    other = So3krates(replace(toy_model().config, cutoff=3.5), elements=[1, 6, 8])
    with pytest.raises(So3kError, match="model 2 of the committee has cutoff"):
        So3kCommittee([models[0], other])
