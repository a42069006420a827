"""OpenMM-ML finds the potential by its name and mixes it with a classical force field."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
from ase import Atoms
from ase.build import molecule
from openmm import app, unit
from openmm_doors import BACKENDS, context_of, energy_of, forces_of
from openmmml import MLPotential
from so3lr_toys import ammonium, by_ase, so3lr_toy, waters
from toys import ethanols, nonlocal_toy, pytorch, save_toy

from so3k_md.engines.openmm.topology import nm_positions, topology_of
from so3k_md.errors import So3kError
from so3k_md.units import EV_IN_KJ_MOL, NM_IN_ANGSTROM

FORCE_FIELD = ("tip3p.xml", str(Path(__file__).parents[2] / "simulations" / "openmm" / "ethanol.xml"))
ETHANOL = list(range(9))


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    return save_toy(tmp_path_factory.mktemp("model") / "toy.pt")


@pytest.fixture(scope="module")
def solvated():
    """Topology, positions and classical System of ethanol in a little water."""
    atoms = molecule("CH3CH2OH")
    force_field = app.ForceField(*FORCE_FIELD)
    modeller = app.Modeller(topology_of(atoms), nm_positions(atoms) * unit.nanometer)
    modeller.addSolvent(force_field, model="tip3p", boxSize=openmm.Vec3(1.5, 1.5, 1.5))
    system = force_field.createSystem(modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.6)
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    return modeller.topology, positions, system


@pytest.mark.parametrize("backend", BACKENDS)
def test_pure_system(model_file, backend):
    atoms = ethanols(2)
    system = MLPotential("so3k", model=model_file, backend=backend).createSystem(topology_of(atoms))
    expected = pytorch(atoms)
    context = context_of(system, nm_positions(atoms))
    assert energy_of(context) == pytest.approx(expected.energy.item() * EV_IN_KJ_MOL, rel=1e-12)
    forces = expected.forces.numpy() * EV_IN_KJ_MOL * NM_IN_ANGSTROM
    np.testing.assert_allclose(forces_of(context), forces, atol=1e-9 * np.abs(forces).max())


@pytest.mark.parametrize("backend", BACKENDS)
def test_mixed_system(model_file, solvated, backend):
    topology, positions, classical = solvated
    potential = MLPotential("so3k", model=model_file)
    system = potential.createMixedSystem(topology, classical, ETHANOL, forceGroup=1, backend=backend)
    context = context_of(system, positions, "CPU")
    state = context.getState(energy=True, forces=True, groups={1})
    alone = molecule("CH3CH2OH")
    expected = pytorch(alone)
    assert state.getPotentialEnergy()._value == pytest.approx(expected.energy.item() * EV_IN_KJ_MOL, rel=1e-9)
    forces = state.getForces(asNumpy=True)._value
    assert not forces[9:].any()
    np.testing.assert_allclose(forces[:9], expected.forces * EV_IN_KJ_MOL * NM_IN_ANGSTROM, atol=1e-4)
    molecules = context.getMolecules()
    assert molecules[0] == tuple(ETHANOL)
    assert {len(water) for water in molecules[1:]} == {3}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["sphc", "efa"])
def test_mixed_system_of_a_non_local_model(kind, solvated, tmp_path, backend):
    topology, positions, classical = solvated
    both = [*ETHANOL, 9, 10, 11]  # and a water
    potential = MLPotential("so3k", model=save_toy(tmp_path / "far.pt", nonlocal_toy(kind)), max_group=9)
    system = potential.createMixedSystem(topology, classical, both, forceGroup=1, backend=backend)
    context = context_of(system, positions, "CPU")
    box = topology.getPeriodicBoxVectors().value_in_unit(unit.angstrom)
    symbols = [atom.element.symbol for atom in topology.atoms()]
    inside = Atoms(symbols, 10 * positions, cell=box, pbc=True)[:12]
    expected = pytorch(inside, nonlocal_toy(kind), [0] * 9 + [1] * 3)
    state = context.getState(energy=True, forces=True, groups={1})
    assert state.getPotentialEnergy()._value == pytest.approx(expected.energy.item() * EV_IN_KJ_MOL, rel=1e-9)
    forces = state.getForces(asNumpy=True)._value
    assert not forces[12:].any()
    np.testing.assert_allclose(forces[:12], expected.forces * EV_IN_KJ_MOL * NM_IN_ANGSTROM, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_charge_of_the_part_that_the_model_describes(tmp_path, backend):
    atoms = ammonium() + waters(2)
    atoms.positions[5:] += 2.5
    atoms.set_cell([12.0, 12.0, 12.0])
    atoms.pbc = True
    bare = openmm.System()  # stands for a classical force field
    for mass in atoms.get_masses():
        bare.addParticle(mass)
    potential = MLPotential("so3k", model=save_toy(tmp_path / "charged.pt", so3lr_toy()), cutoff_lr=5.0)
    with pytest.raises(So3kError, match="11 electrons"):
        potential.createMixedSystem(topology_of(atoms), bare, range(5))
    system = potential.createMixedSystem(topology_of(atoms), bare, range(5), charge=1, backend=backend)
    context = context_of(system, nm_positions(atoms))
    expected = by_ase(ammonium(), cutoff_lr=5.0)
    assert energy_of(context) == pytest.approx(expected["energy"] * EV_IN_KJ_MOL, rel=1e-9)
    forces = forces_of(context) / (EV_IN_KJ_MOL * NM_IN_ANGSTROM)
    np.testing.assert_allclose(forces[:5], expected["forces"], atol=1e-8)
    assert not forces[5:].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_group": 8}, "group 0 has 9 atoms, more than max_group = 8"),
        ({"groups": [0] * 9}, r"group has shape \(9,\), expected \(12,\)"),
        ({"groups": [0] * 12}, r"do not connect the group of atom 0 \(12 atoms\)"),
    ],
)
def test_groups_of_a_mixed_system_are_checked(solvated, tmp_path, options, message):
    topology, _, classical = solvated
    potential = MLPotential("so3k", model=save_toy(tmp_path / "far.pt", nonlocal_toy("sphc")))
    with pytest.raises(So3kError, match=message):
        potential.createMixedSystem(topology, classical, range(12), **options)


@pytest.mark.parametrize("backend", BACKENDS)
def test_interpolation(model_file, solvated, backend):
    topology, positions, classical = solvated
    potential = MLPotential("so3k", model=model_file)
    mixed = potential.createMixedSystem(topology, classical, ETHANOL, backend=backend)
    between = potential.createMixedSystem(topology, classical, ETHANOL, interpolate=True, backend=backend)
    context = context_of(between, positions)
    energies = []
    for fraction in (0.0, 0.5, 1.0):
        context.setParameter("lambda_interpolate", fraction)
        energies.append(energy_of(context))
    assert energies[0] == pytest.approx(energy_of(context_of(classical, positions)), abs=0.01)
    assert energies[1] == pytest.approx((energies[0] + energies[2]) / 2, abs=1e-6)
    assert energies[2] == pytest.approx(energy_of(context_of(mixed, positions)), abs=1e-6)
    context.getIntegrator().step(2)


@pytest.mark.parametrize(
    ("constructor", "call", "message"),
    [
        ({"model": None}, {}, "needs a model"),
        ({"model": "absent.pt"}, {}, "no model file absent.pt"),
        ({"charge": 1}, {}, "the model does not use them"),
        ({"colour": 1}, {}, "no option colour"),
        ({}, {"backend": "magic"}, "choose one of auto"),
    ],
)
def test_unusable_options_are_refused(model_file, constructor, call, message):
    with pytest.raises(So3kError, match=message):
        MLPotential("so3k", **{"model": model_file} | constructor).createSystem(topology_of(["O"]), **call)


def test_the_entry_point_imports_nothing_heavy():
    code = (
        "import sys, so3k_md.engines.openmmml\n"
        "print(sorted({'torch', 'openmm', 'ase', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
