"""Attention beyond the cutoff in ASE: molecules broken or whole, derivatives, refusals of groups."""

import ase.md.verlet
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from nonlocal_models import CELL, NONLOCAL, molecules
from small_models import CONFIGS, lively

from so3k_md import So3krates
from so3k_md.engines.ase import So3kCalculator
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.export.torchscript import archive, script
from so3k_md.model import set_dtype
from so3k_md.model.forces import evaluate
from so3k_md.structure.build import build_graph


@pytest.fixture(scope="module")
def models():
    """A model of each kind, in float64."""
    return {
        name: lively(set_dtype(So3krates(config, [1, 6, 8], seed=3), torch.float64)).eval()
        for name, config in NONLOCAL.items()
    }


def box(pbc=True):
    """Four molecules that touch, one longer than the box, with the group of each atom."""
    numbers, positions, group = molecules()
    atoms = Atoms(numbers, positions, cell=CELL if pbc else None, pbc=pbc)
    atoms.arrays["group"] = 5 - 3 * group
    return atoms


def broken(atoms, seed=0):
    """The same with every atom in an image of its own."""
    torn = atoms.copy()
    images = np.random.default_rng(seed).integers(-2, 3, (len(atoms), 3)) * atoms.pbc
    torn.positions += images @ atoms.cell.array
    return torn


SLAB = (True, False, True)


@pytest.mark.parametrize(
    ("name", "pbc"), [(name, True) for name in NONLOCAL] + [("sphc-2022", SLAB), ("efa-lebedev", SLAB)]
)
def test_a_broken_molecule_is_as_good_as_a_whole_one(models, name, pbc):
    whole = box()
    whole.pbc = pbc
    found = []
    for atoms in (whole, broken(whole), broken(whole, 1)):
        atoms.calc = So3kCalculator(models[name])
        found.append((atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()))
    group = np.unique(whole.arrays["group"], return_inverse=True)[1]
    graph = build_graph(whole.numbers, whole.positions, CELL, whole.pbc, models[name].needs.cutoff, group)
    expected = evaluate(models[name], graph, 1)
    assert np.abs(graph.positions.numpy() - whole.positions).max() == 0.0
    for energy, forces, stress in found:
        assert energy == pytest.approx(expected.energy.item(), abs=1e-10)
        np.testing.assert_allclose(forces, expected.forces, atol=1e-10)
        np.testing.assert_allclose(stress, found[0][2], atol=1e-11)


def test_images_would_matter(models):
    atoms, group = broken(box()), molecules()[2]
    structure = atoms.numbers, atoms.positions, CELL, atoms.pbc, 3.0, group
    energies = [
        evaluate(models["sphc-2022"], build_graph(*structure, whole=flag), 1).energy.item()
        for flag in (True, False)
    ]
    assert abs(energies[0] - energies[1]) > 1e-6


def test_exported_equals_eager(models, tmp_path):
    for name, model in models.items():
        path = tmp_path / f"{name}.pt"
        path.write_bytes(archive(script(model)))
        torn = broken(box())
        eager, exported = (So3kCalculator(m).get_forces(torn) for m in (model, path))
        np.testing.assert_allclose(exported, eager, atol=1e-11)


@pytest.mark.parametrize("name", NONLOCAL)
def test_forces_and_stress_are_derivatives(models, name):
    atoms = broken(box())
    atoms.calc = So3kCalculator(models[name])
    forces = atoms.get_forces()
    assert np.abs(forces).max() > 0.05
    some = range(0, 16, 5)
    numerical = calculate_numerical_forces(atoms, eps=1e-4, iatoms=list(some))
    np.testing.assert_allclose(forces[list(some)], numerical, atol=1e-6)
    np.testing.assert_allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-4), atol=1e-7)


@pytest.mark.parametrize("name", ["sphc-2022", "efa-lebedev"])
def test_wrapping_during_dynamics_changes_nothing(models, name):
    atoms, other = box(), box()
    atoms.calc, other.calc = So3kCalculator(models[name]), So3kCalculator(models[name])
    energies = []
    for run in (atoms, other):
        run.positions += [4.0, -3.0, 0.5]
        speeds = np.sqrt(300 * units.kB / run.get_masses())[:, None]
        run.set_velocities(speeds * np.random.default_rng(1).normal(size=(16, 3)))
        dynamics = ase.md.verlet.VelocityVerlet(run, 0.2 * units.fs)
        for _ in range(15):
            dynamics.run(1)
            if run is other:
                run.wrap()
            energies.append(run.get_total_energy())
    np.testing.assert_allclose(energies[:15], energies[15:], atol=1e-9)
    assert np.ptp(energies) < 0.02 * atoms.get_kinetic_energy()
    assert other.calc.lists.whole.builds == 1


def test_an_open_structure_is_one_group_unless_it_says_more(models):
    one, several = box(pbc=False), box(pbc=False)
    several.arrays["group"] = np.arange(16)
    del one.arrays["group"]
    energies = [
        So3kCalculator(models["sphc-2022"]).get_potential_energy(a) for a in (one, several, box(False))
    ]
    assert len({round(energy, 6) for energy in energies}) == 3


def test_groups_may_change_between_calculations(models):
    atoms, calculator = box(), So3kCalculator(models["sphc-2022"])
    atoms.calc = calculator
    first = atoms.get_potential_energy()
    atoms.arrays["group"] = np.where(atoms.arrays["group"] == 5, 2, atoms.arrays["group"])
    changed = atoms.get_potential_energy()
    assert changed == pytest.approx(
        So3kCalculator(models["sphc-2022"]).get_potential_energy(atoms), abs=1e-10
    )
    assert abs(changed - first) > 1e-6


def test_all_warns_once_and_takes_the_images_given(models):
    atoms = box()
    del atoms.arrays["group"]
    with pytest.warns(So3kWarning, match="neither extensive nor separable"):
        calculator = So3kCalculator(models["sphc-2022"], groups="all")
    energy = calculator.get_potential_energy(atoms)  # warns no more, or it would be an error here
    graph = build_graph(atoms.numbers, atoms.positions, CELL, True, 3.0, np.zeros(16), whole=False)
    assert energy == pytest.approx(evaluate(models["sphc-2022"], graph, 1).energy.item(), abs=1e-10)


def test_a_local_model_has_no_use_for_groups():
    local = So3krates(CONFIGS["euclidean-2024"], [1, 6, 8])
    expected = So3kCalculator(local).get_forces(without_groups())
    named = with_groups(["nonsense"] * 16)
    assert (So3kCalculator(local, groups="all", max_group=1).get_forces(named) == expected).all()


def without_groups():
    atoms = box()
    del atoms.arrays["group"]
    return atoms


def with_groups(group, pbc=True):
    atoms = box(pbc)
    atoms.arrays["group"] = np.array(group)
    return atoms


def wide():
    atoms = box(pbc=False)
    atoms.positions *= 1.5
    return atoms


@pytest.mark.parametrize(
    ("name", "atoms", "arguments", "says"),
    [
        ("sphc-2022", without_groups(), {}, r"periodic.*atoms\.arrays\['group'\].*groups: all"),
        ("efa-lebedev", without_groups(), {}, "the structure: is periodic"),
        ("sphc-2022", with_groups(np.full(16, 0.5)), {}, "group of atom 0 is 0.5"),
        ("sphc-2022", with_groups(np.full((16, 2), 1)), {}, r"group has shape \(16, 2\)"),
        ("sphc-2022", box(), {"max_group": 7}, "group 5 has 8 atoms.*max_group = 7"),
        ("efa-lebedev", wide(), {"max_group": 1}, "structure: the group of atom 0 is .* Å wide.* 10.5 Å"),
        ("efa-reciprocal", box(pbc=False), {}, "open axis.*efa_waves: lebedev"),
        ("sphc-2022", box(), {"groups": "molecule"}, "groups = 'molecule' is unknown: choose auto or all"),
    ],
)
def test_unusable_groups_are_refused(models, name, atoms, arguments, says):
    with pytest.raises(So3kError, match=says) as refusal:
        So3kCalculator(models[name], **arguments).get_potential_energy(atoms)
    assert "\n" not in str(refusal.value)
