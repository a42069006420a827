"""Runs that explode stop, with the step, the atoms and the last good frame."""

import re
from contextlib import nullcontext

import mdtraj
import numpy as np
import openmm
import pytest
from ase.build import molecule
from openmm import app
from so3lr_toys import so3lr_toy, waters
from toys import toy_model

from so3k_md.engines.openmm import create_system
from so3k_md.engines.openmm.guard import ExplosionGuard
from so3k_md.engines.openmm.report import So3kReporter
from so3k_md.engines.openmm.run import add_reporters, readable_errors
from so3k_md.errors import So3kError, So3kWarning


def simulation_of(structure, model, dt_ps=0.0005):
    made = create_system(structure, model)
    integrator = openmm.LangevinMiddleIntegrator(1000, 1, dt_ps)
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(
        made.topology, made.system, integrator, openmm.Platform.getPlatformByName("Reference")
    )
    simulation.context.setPositions(made.positions_nm)
    simulation.context.setVelocitiesToTemperature(1000, 1)
    return simulation


def kick(simulation, atom, speed):
    """Set the speed of an atom, nm/ps."""
    velocities = simulation.context.getState(velocities=True).getVelocities(asNumpy=True)._value
    velocities[atom] = [speed, 0, 0]
    simulation.context.setVelocities(velocities)


def test_a_run_that_explodes_stops_before_its_frames_are_written(tmp_path):
    simulation = simulation_of(molecule("CH3CH2OH"), "ethanol-rmd17", dt_ps=0.004)
    add_reporters(simulation, tmp_path, 1)
    with pytest.raises(So3kError) as error, readable_errors():
        simulation.step(500)
    told = re.fullmatch(
        r"the run has exploded by step (\d+): (\S+) K, atom \d moves at \S+ Å/fs, the bond of atoms \d and "
        r"\d is \S+ Å long; step (\d+) was valid: take a shorter .*",
        str(error.value),
    )
    step, kelvin, good = (float(text) for text in told.groups())
    assert good == step - 1
    assert kelvin > 1500
    assert len(mdtraj.load(tmp_path / "trajectory.dcd", top=tmp_path / "topology.pdb")) == good


def test_hot_dynamics_is_no_explosion():
    simulation = simulation_of(molecule("CH3CH2OH"), "ethanol-rmd17")
    simulation.reporters.append(ExplosionGuard(1))
    simulation.step(300)
    assert simulation.reporters[0].last_good == 300


@pytest.mark.parametrize(("speed", "stops"), [(20.0, False), (60.0, True), (np.nan, True)])
def test_one_atom_is_enough(speed, stops, tmp_path):
    """Of hydrogen: 2 eV, 19 eV, and no number."""
    simulation = simulation_of(waters(), so3lr_toy(), dt_ps=1e-6)
    reporter = So3kReporter(tmp_path / "physics.csv", 1, simulation.system)
    kick(simulation, 7, speed)
    state = simulation.context.getState(positions=True, velocities=True)
    told = pytest.raises(So3kError, match=r"atom 7 moves at .* no earlier step was checked")
    with told if stops else nullcontext():
        reporter.report(simulation, state)
    assert len((tmp_path / "physics.csv").read_text().splitlines()) == 2 - stops


def test_bonds_over_walls_are_not_long():
    box = waters()
    box.positions += [0.0, 0.0, 0.3]
    box.wrap()
    simulation = simulation_of(box, toy_model())
    kick(simulation, 7, 60.0)
    guard = ExplosionGuard(1)
    with pytest.raises(So3kError) as error:
        guard.report(simulation, simulation.context.getState(positions=True, velocities=True))
    assert float(re.search(r"is (\S+) Å long", str(error.value))[1]) < 1.3


def test_a_box_given_to_an_open_system_is_told_of():
    simulation = simulation_of(molecule("CH3CH2OH"), toy_model())
    simulation.reporters.append(ExplosionGuard(1))
    simulation.step(1)
    simulation.context.setPeriodicBoxVectors(*np.eye(3))
    simulation.reporters.append(ExplosionGuard(1))
    with pytest.warns(So3kWarning, match=r"box, \[10\.0, 10\.0, 10\.0\] Å, but the system is open"):
        simulation.step(1)
