"""Positions that a model cannot describe: dynamics stops with a reason, trials of a minimiser are refused."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from openmm import app
from openmm_doors import BACKENDS, context_of, energy_of, forces_of
from so3lr_toys import waters
from toys import loud, nonlocal_toy, rattled, structure, toy_model

from so3k_md import So3krates
from so3k_md.engines.openmm import create_system
from so3k_md.engines.openmm.checks import box_fault
from so3k_md.engines.openmm.module import script_for_openmm
from so3k_md.engines.openmm.run import readable_errors
from so3k_md.errors import So3kError
from so3k_md.structure.cells import cell_fault, limits_of

SCAN = Path(__file__).parents[2] / "simulations" / "data" / "cumulene" / "c9h4_gfn2_scan_public.npz"
BUTANE = molecule("trans-butane")  # 6.5 Å wide


def narrow():
    """Waves that reach 9 Å."""
    return loud(So3krates(replace(nonlocal_toy("efa").config, efa_reach=9.0), elements=[1, 6, 8]))


def width(positions_nm):
    return 10 * np.linalg.norm(positions_nm[:, None] - positions_nm[None], axis=-1).max()


def energies(context, positions_nm, scales):
    """Energies of the structure scaled, one after the other."""
    found = []
    for scale in scales:
        context.setPositions(scale * positions_nm)
        found.append(energy_of(context))
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_minimiser_comes_back_from_beyond_the_reach_of_waves(backend):
    scan = np.load(SCAN)
    made = create_system(rattled(Atoms(scan["z"], scan["R"][0])), "cumulene-efa", backend=backend)
    context = context_of(made.system, made.positions_nm)
    before = energy_of(context)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=100)
    after = context.getState(positions=True, energy=True)
    assert before - 500 < after.getPotentialEnergy()._value < before - 5  # kJ/mol
    assert width(after.getPositions(asNumpy=True)._value) < 12


@pytest.mark.parametrize("backend", BACKENDS)
def test_trials_are_refused_and_anything_else_is_an_error(backend):
    made = create_system(BUTANE, narrow(), backend=backend)
    positions = made.positions_nm - made.positions_nm.mean(0)
    context = context_of(made.system, positions)
    good = energy_of(context)
    # a line search, each trial nearer to the last good positions
    assert energies(context, positions, (2.5, 2.1)) == [np.inf] * 2
    context.setPositions(1.8 * positions)
    assert not forces_of(context).any()
    assert energies(context, positions, (1.01,))[0] != good
    # a drift, as in dynamics
    limit = next(scale for scale in np.arange(1.0, 2.0, 0.01) if width(scale * positions) > 8.9)
    with pytest.raises(So3kError, match="wide, more than efa_reach"), readable_errors():
        energies(context, positions, np.arange(1.0, limit, 0.02).tolist() + [limit + 0.02, limit + 0.04])
    # a jump that does not turn back
    assert np.isfinite(energies(context, positions, (1.0,))).all()
    with pytest.raises(So3kError, match="wide, more than efa_reach"), readable_errors():
        energies(context, positions, (2.0, 2.0))
    # and a bad start
    with pytest.raises(So3kError, match="wide, more than efa_reach"), readable_errors():
        energy_of(context_of(made.system, 2.0 * positions))


@pytest.mark.parametrize("backend", BACKENDS)
def test_dynamics_stops_beyond_the_reach_of_waves(backend):
    made = create_system(BUTANE, narrow(), backend=backend)
    context = context_of(made.system, made.positions_nm)
    outwards = np.sign(made.positions_nm - made.positions_nm.mean(0))
    # nm/ps: 0.05 Å in a step; 5 Å, which might be a trial, so that one step more is taken
    for speed, most in ((10.0, 1), (1000.0, 2)):
        context.setPositions(made.positions_nm)
        context.setVelocities(speed * outwards)
        n_wide, message = 0, ""
        while n_wide < 5 and not message:
            try:
                context.getIntegrator().step(1)
                # the width that is compared is an upper bound
                n_wide += width(context.getState(positions=True).getPositions(asNumpy=True)._value) > 9.0
            except openmm.OpenMMException as error:
                message = str(error)
        assert "wide, more than efa_reach" in message
        assert n_wide <= most


@pytest.mark.parametrize("backend", BACKENDS)
def test_molecules_that_have_flown_apart_stop(backend):
    made = create_system(molecule("CH3CH2OH"), "ethanol-rmd17", backend=backend)
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.02)
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(
        made.topology, made.system, integrator, openmm.Platform.getPlatformByName("Reference")
    )
    simulation.context.setPositions(made.positions_nm)
    simulation.context.setVelocitiesToTemperature(300, 1)
    message = "none of 9 bonded atoms has a neighbor within 500 pm.* have dissociated"
    with pytest.raises(So3kError, match=message), readable_errors():
        simulation.step(200)


def test_atoms_without_bonds_and_two_with_one_may_part():
    for atoms in (Atoms("OOO", [[0, 0, 0], [9, 0, 0], [0, 9, 0]]), molecule("OH")):
        made = create_system(atoms, toy_model())
        assert np.isfinite(
            energies(context_of(made.system, made.positions_nm), made.positions_nm, (1, 20))
        ).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_that_gives_no_number_stops(backend):
    model = copy.deepcopy(toy_model())
    model.energies.head.scale.fill_(torch.nan)
    made = create_system(structure("open"), model, backend=backend)
    with (
        pytest.raises(So3kError, match="the force of the model on particle 0 is not a finite"),
        readable_errors(),
    ):
        energy_of(context_of(made.system, made.positions_nm))


@pytest.mark.parametrize("squeeze", [0.4, 0.7, 1.3])
def test_strange_starts_are_minimised(squeeze):
    made = create_system(molecule("CH3CH2OH"), "ethanol-rmd17")
    noise = np.random.default_rng(4).normal(scale=0.03, size=made.positions_nm.shape)
    context = context_of(made.system, squeeze * made.positions_nm + noise)
    before = energy_of(context)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=60)
    assert energy_of(context) < before


def test_no_state_but_the_last_good_positions_is_kept():
    module = script_for_openmm(toy_model(), [8, 1, 1], bonded=[0, 1, 2])
    positions = torch.tensor(molecule("H2O").positions / 10)
    first = module(positions)[0]
    assert module(100 * positions)[0] == torch.inf
    assert module(positions)[0] == first


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("box_nm", "message"),
    [
        ([0.1, 0.1, 0.1], "is the cube of 1 A that PDB files contain if there is no cell"),
        ([0.64, 0.64, 0.06], "repeats after 60 pm, so that an atom would overlap with its own image"),
        ([0.3, 0.3, 0.1], "has 9 A.3 for 24 atoms, less than in any known material"),
    ],
)
def test_a_box_set_later_is_checked(box_nm, message, backend):
    made = create_system(waters(), toy_model(), backend=backend)
    context = context_of(made.system, made.positions_nm)
    good = energy_of(context)
    for _ in range(2):
        context.setPeriodicBoxVectors(*np.diag(box_nm))
        with pytest.raises(So3kError, match=f"the box {message}.*: set the right one"), readable_errors():
            energy_of(context)
    context.setPeriodicBoxVectors(*made.system.getDefaultPeriodicBoxVectors())
    assert energy_of(context) == good


def test_the_limits_of_a_box_are_those_of_structures():
    """The bounds that the module compares are those at which `cell_fault` changes its mind."""
    for numbers in ([1], [8, 1, 1], [76] * 4):
        length, volume = limits_of(numbers)
        for share, bad in ((0.99, True), (1.01, False)):
            slab = np.diag([share * length, 30.0, 30.0])
            cube = np.eye(3) * np.cbrt(share * volume)
            for cell in (slab, cube):
                told = cell_fault(numbers, cell, True)
                said = box_fault(torch.tensor(cell), length, volume, len(numbers))
                assert bool(told) == bool(said)
            assert bool(cell_fault(numbers, slab, True)) == bad
