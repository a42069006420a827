"""OpenMM gets from both backends, on each platform, what PyTorch computes."""

import numpy as np
import openmm
import pytest
import torch
from openmm import unit
from openmm_doors import BACKENDS, PLATFORMS, as_openmm_sees, context_of, energy_of, forces_of
from toys import STRUCTURES, ethanols, pytorch, structure, toy_model

from so3k_md.engines.openmm import create_system
from so3k_md.engines.openmm.module import script_for_openmm
from so3k_md.needs import needs_of
from so3k_md.units import EV_IN_KJ_MOL, NM_IN_ANGSTROM


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", STRUCTURES)
def test_equals_pytorch(name, backend, platform):
    atoms = structure(name)
    made = create_system(atoms, toy_model(), backend=backend)
    assert made.backend.name == backend
    context = context_of(made.system, made.positions_nm, platform)
    expected = pytorch(as_openmm_sees(atoms, made))
    assert energy_of(context) == pytest.approx(expected.energy.item() * EV_IN_KJ_MOL, rel=1e-13)
    forces = expected.forces.numpy() * EV_IN_KJ_MOL * NM_IN_ANGSTROM
    np.testing.assert_allclose(forces_of(context), forces, atol=1e-8 * (np.abs(forces).max() or 1.0))
    # the lattice is the same, only turned
    assert expected.energy.item() == pytest.approx(pytorch(atoms).energy.item(), rel=1e-12)


@pytest.mark.parametrize("name", ["open", "triclinic", "small"])
def test_forces_are_the_derivative_of_the_energy(name):
    made = create_system(structure(name), toy_model())
    context = context_of(made.system, made.positions_nm)
    forces, step = forces_of(context), 1e-5
    for k in range(3):
        for axis in range(3):
            energies = []
            for sign in (1, -1):
                moved = made.positions_nm.copy()
                moved[k, axis] += sign * step
                context.setPositions(moved)
                energies.append(energy_of(context))
            numerical = -(energies[0] - energies[1]) / (2 * step)
            assert forces[k, axis] == pytest.approx(numerical, abs=1e-5 * np.abs(forces).max())


@pytest.mark.parametrize("backend", BACKENDS)
def test_lattice_vectors_change_nothing(backend):
    made = create_system(structure("triclinic"), toy_model(), backend=backend)
    context = context_of(made.system, made.positions_nm)
    box = context.getState().getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
    energy, forces = energy_of(context), forces_of(context)
    images = np.random.default_rng(0).integers(-9, 10, made.positions_nm.shape)
    context.setPositions(made.positions_nm + images @ box)
    assert energy_of(context) == pytest.approx(energy, rel=1e-13)
    np.testing.assert_allclose(forces_of(context), forces, atol=1e-9 * np.abs(forces).max())


def test_platforms_in_single_precision_get_single_precision_forces():
    atoms = structure("triclinic")
    module = script_for_openmm(toy_model(), atoms.numbers.tolist(), periodic=True)
    positions, box = torch.tensor(atoms.positions / 10).float(), torch.tensor(atoms.cell.array / 10).float()
    energy, forces = module(positions, box)
    assert (energy.dtype, energy.shape, forces.dtype) == (torch.float64, (), torch.float32)
    assert forces.is_contiguous()
    exact = module(positions.double(), box.double())
    assert energy == exact[0]
    torch.testing.assert_close(forces, exact[1].float())


def test_freezing_changes_nothing_and_attributes_survive_in_a_torchforce():
    import openmmtorch

    atoms = structure("triclinic")
    module = script_for_openmm(toy_model(), atoms.numbers.tolist(), periodic=True)
    positions, box = torch.tensor(atoms.positions / 10), torch.tensor(atoms.cell.array / 10)
    frozen = torch.jit.freeze(script_for_openmm(toy_model(), atoms.numbers.tolist(), periodic=True))
    for _ in range(2):
        ours, theirs = module(positions, box), frozen(positions, box)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-10)
        positions = positions + 0.001
    inside = openmmtorch.TorchForce(module).getModule()
    assert needs_of(inside) == toy_model().needs


def test_model_of_some_atoms_leaves_the_others_alone():
    atoms = ethanols(2)
    rows = [12, 9, 10, 11, 13, 14, 15, 16, 17]
    for backend in BACKENDS:
        made = create_system(atoms, toy_model(), backend=backend, atoms=rows)
        forces = forces_of(context_of(made.system, made.positions_nm))
        expected = pytorch(as_openmm_sees(atoms, made)[rows]).forces.numpy() * EV_IN_KJ_MOL * NM_IN_ANGSTROM
        np.testing.assert_allclose(forces[rows], expected, atol=1e-9 * np.abs(expected).max())
        assert not np.delete(forces, rows, axis=0).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_system_survives_copy_and_xml(backend):
    made = create_system(structure("triclinic"), toy_model(), backend=backend)
    forces = forces_of(context_of(made.system, made.positions_nm))
    read = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(made.system))
    assert np.array_equal(forces_of(context_of(read, made.positions_nm)), forces)


@pytest.mark.parametrize("backend", BACKENDS)
def test_contexts_do_not_disturb_each_other(backend):
    made = create_system(structure("triclinic"), toy_model(), backend=backend)
    other = made.positions_nm[::-1] * 1.02
    one, two = context_of(made.system, made.positions_nm), context_of(made.system, other)
    alone = [forces_of(one), forces_of(two)]
    for _ in range(2):
        assert np.array_equal(forces_of(one), alone[0])
        assert np.array_equal(forces_of(two), alone[1])
        one.setPositions(made.positions_nm)
        two.setPositions(other)


def test_bonds_hold_molecules_together_but_not_crystals():
    made = create_system(ethanols(2), toy_model())
    molecules = context_of(made.system, made.positions_nm).getMolecules()
    assert [len(molecule) for molecule in molecules] == [9] * 8
    assert made.topology.getNumResidues() == 8
    crystal = structure("small")
    crystal.cell = crystal.cell * 0.5  # every atom bonded to its own images
    made = create_system(crystal, toy_model())
    assert len(context_of(made.system, made.positions_nm).getMolecules()) == 3
    free = create_system(ethanols(2), toy_model(), keep_molecules=False)
    assert len(context_of(free.system, free.positions_nm).getMolecules()) == 72
