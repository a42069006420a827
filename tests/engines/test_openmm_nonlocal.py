"""Attention beyond the cutoff in OpenMM: as in PyTorch, whatever the images of the atoms."""

import copy

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit
from openmm_doors import BACKENDS, PLATFORMS, as_openmm_sees, context_of, energy_of, forces_of
from toys import NONLOCAL_KINDS, mixture, nonlocal_toy, pytorch

from so3k_md.engines.openmm import create_system
from so3k_md.engines.openmm.module import script_for_openmm
from so3k_md.engines.openmm.topology import nm_positions
from so3k_md.structure.images import spanning_tree
from so3k_md.units import EV_IN_KJ_MOL, NM_IN_ANGSTROM

CASES = [
    (kind, name)
    for kind in NONLOCAL_KINDS
    for name in ("open", "periodic", "triclinic")
    if (kind, name) != ("reciprocal", "open")
]
FORCE_UNIT = EV_IN_KJ_MOL * NM_IN_ANGSTROM


def scattered(atoms, seed=5):
    """The same structure with each atom in another image."""
    moved = atoms.copy()
    images = np.random.default_rng(seed).integers(-2, 3, (len(atoms), 3))
    moved.positions += images @ atoms.cell.array
    return moved


def broken(atoms):
    """The same structure with each atom in the home cell, which cuts molecules at its walls."""
    moved = atoms.copy()
    moved.wrap()
    assert np.abs(moved.positions - atoms.positions).max() > 1
    return moved


def assert_as_pytorch(context, expected):
    assert energy_of(context) == pytest.approx(expected.energy.item() * EV_IN_KJ_MOL, rel=1e-12)
    forces = expected.forces.numpy()
    np.testing.assert_allclose(forces_of(context) / FORCE_UNIT, forces, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_equals_pytorch_in_every_image(kind, name, backend):
    whole, group = mixture(name)
    made = create_system(whole, nonlocal_toy(kind), backend=backend)
    expected = pytorch(as_openmm_sees(whole, made), nonlocal_toy(kind), group)
    local = pytorch(as_openmm_sees(whole, made), nonlocal_toy(kind), range(len(whole)))
    # waves of the lattice ask for no groups
    assert kind == "reciprocal" or (expected.forces - local.forces).abs().max() > 1e-3
    for platform in PLATFORMS:
        context = context_of(made.system, made.positions_nm, platform)
        assert_as_pytorch(context, expected)
        for atoms in (scattered(whole), broken(whole)) if whole.pbc.any() else ():
            context.setPositions(nm_positions(atoms))
            assert_as_pytorch(context, expected)


@pytest.mark.parametrize("kind", NONLOCAL_KINDS)
def test_forces_are_the_derivative_of_the_energy(kind):
    atoms, _ = mixture("triclinic")
    made = create_system(scattered(atoms), nonlocal_toy(kind))
    context = context_of(made.system, made.positions_nm)
    forces, step = forces_of(context), 1e-5
    for k in range(0, len(atoms), 5):
        energies = []
        for sign in (1, -1):
            moved = made.positions_nm.copy()
            moved[k, k % 3] += sign * step
            context.setPositions(moved)
            energies.append(energy_of(context))
        numerical = -(energies[0] - energies[1]) / (2 * step)
        assert forces[k, k % 3] == pytest.approx(numerical, abs=2e-6 * np.abs(forces).max())


@pytest.mark.parametrize(
    ("kind", "pressure"), [("sphc", "isotropic"), ("efa", "flexible"), ("reciprocal", "flexible")]
)
def test_equals_pytorch_along_constant_pressure(kind, pressure):
    atoms, group = mixture("triclinic")
    made = create_system(broken(atoms), nonlocal_toy(kind))
    barostats = {"isotropic": openmm.MonteCarloBarostat, "flexible": openmm.MonteCarloFlexibleBarostat}
    barostat = barostats[pressure](2000, 300, 2)
    barostat.setRandomNumberSeed(1)
    made.system.addForce(barostat)
    # a short step and fixed seeds: where bonds grow or the box shrinks, the reference, which follows the
    # shortest links, takes the contact of butane with its own image for a bond
    integrator = openmm.LangevinMiddleIntegrator(300, 5, 0.0001)
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(made.topology, made.system, integrator, reference())
    simulation.context.setPositions(made.positions_nm)
    simulation.context.setVelocitiesToTemperature(300, 2)
    volumes = set()
    for _ in range(5):
        simulation.step(5)
        state = simulation.context.getState(positions=True)
        volumes.add(state.getPeriodicBoxVolume()._value)
        now = atoms.copy()
        now.cell = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
        now.positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        assert_as_pytorch(simulation.context, pytorch(now, nonlocal_toy(kind), group))
    assert len(volumes) > 2


@pytest.mark.parametrize("kind", NONLOCAL_KINDS)
def test_energy_is_conserved_while_molecules_cross_the_walls(kind):
    atoms, group = mixture("periodic")
    made = create_system(atoms, nonlocal_toy(kind))
    context = context_of(made.system, made.positions_nm)
    integrator = context.getIntegrator()
    drift = np.array([24.0, 15.0, -24.0])  # nm/ps, half a box in the time of the run
    context.setVelocities(drift + 0.5 * np.random.default_rng(3).normal(size=(len(atoms), 3)))
    box = context.getState().getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
    cells, total_energies = [], []
    for _ in range(25):
        integrator.step(2)
        state = context.getState(positions=True, energy=True)
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        fractional = positions @ np.linalg.inv(box)
        cells.append(np.floor(fractional))
        total_energies.append((state.getPotentialEnergy() + state.getKineticEnergy())._value)
        # an engine that wraps atoms one by one would be told the same
        energy = state.getPotentialEnergy()._value
        context.setPositions((fractional - np.floor(fractional)) @ box)
        assert energy_of(context) == pytest.approx(energy, rel=1e-12)
        context.setPositions(positions)
    crossings = np.diff(np.array(cells), axis=0).any(-1).sum(0)
    assert (np.bincount(group, crossings) > 0).all()
    assert np.abs(np.diff(total_energies)).max() < 0.02


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["sphc", "efa"])
def test_system_survives_copy_and_xml(kind, backend):
    atoms, _ = mixture("triclinic")
    made = create_system(scattered(atoms), nonlocal_toy(kind), backend=backend)
    forces = forces_of(context_of(made.system, made.positions_nm))
    text = openmm.XmlSerializer.serialize(made.system)
    for other in (openmm.XmlSerializer.deserialize(text), copy.deepcopy(made.system)):
        assert np.array_equal(forces_of(context_of(other, made.positions_nm)), forces)


@pytest.mark.parametrize("kind", NONLOCAL_KINDS)
def test_freezing_changes_nothing(kind):
    atoms, group = mixture("periodic")
    parent = spanning_tree(atoms.positions, atoms.cell.array, atoms.pbc, group)
    given = atoms.numbers.tolist(), None, None, True
    module = script_for_openmm(nonlocal_toy(kind), *given, group=group, parent=parent)
    frozen = torch.jit.freeze(script_for_openmm(nonlocal_toy(kind), *given, group=group, parent=parent))
    box = torch.tensor(atoms.cell.array / 10)
    for seed in (0, 1):
        positions = torch.tensor(scattered(atoms, seed).positions / 10)
        torch.testing.assert_close(module(positions, box), frozen(positions, box), rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize(("kind", "backend"), list(zip(["sphc", "efa"], BACKENDS, strict=True)))
def test_groups_of_some_atoms_in_another_order(kind, backend):
    atoms, group = mixture("periodic")
    rows = np.random.default_rng(2).permutation(np.flatnonzero(group != 1))
    made = create_system(scattered(atoms), nonlocal_toy(kind), backend=backend, atoms=rows.tolist())
    context = context_of(made.system, made.positions_nm)
    expected = pytorch(atoms[rows], nonlocal_toy(kind), group[rows])
    forces = forces_of(context) / FORCE_UNIT
    np.testing.assert_allclose(forces[rows], expected.forces.numpy(), atol=1e-9)
    assert not forces[group == 1].any()


def reference():
    return openmm.Platform.getPlatformByName("Reference")
