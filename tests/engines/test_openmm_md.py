"""Simulations in OpenMM: kept lists, barostats, restarts, conserved energy, files."""

import itertools

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from openmm import app
from openmm_doors import BACKENDS, context_of, energy_of, forces_of
from toys import ethanols, structure, toy_model

from so3k_md.engines.openmm import create_system
from so3k_md.engines.openmm.module import script_for_openmm
from so3k_md.engines.openmm.run import new_simulation, run, run_parser
from so3k_md.errors import So3kError

PRESSURES = {
    "isotropic": lambda: openmm.MonteCarloBarostat(2000, 300, 3),
    "anisotropic": lambda: openmm.MonteCarloAnisotropicBarostat(
        openmm.Vec3(2000, 2000, 2000), 300, True, True, True, 3
    ),
    "flexible": lambda: openmm.MonteCarloFlexibleBarostat(2000, 300, 3),
}


def simulation_of(made, integrator=None, platform="Reference"):
    if integrator is None:
        integrator = openmm.LangevinMiddleIntegrator(300, 5, 0.0005)
        integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(
        made.topology, made.system, integrator, openmm.Platform.getPlatformByName(platform)
    )
    simulation.context.setPositions(made.positions_nm)
    simulation.context.setVelocitiesToTemperature(300, 2)
    return simulation


@pytest.mark.parametrize(("backend", "pressure"), list(itertools.product(BACKENDS, PRESSURES)))
def test_kept_list_equals_new_lists_along_constant_pressure(backend, pressure):
    atoms = ethanols(2)
    made = create_system(atoms, toy_model(), backend=backend)
    barostat = PRESSURES[pressure]()
    barostat.setRandomNumberSeed(4)
    made.system.addForce(barostat)
    simulation = simulation_of(made)
    fresh = create_system(atoms, toy_model(), backend=backend, skin=0)
    check = context_of(fresh.system, fresh.positions_nm)
    volumes = set()
    for _ in range(12):
        simulation.step(3)
        state = simulation.context.getState(positions=True, energy=True, forces=True)
        check.setPeriodicBoxVectors(*state.getPeriodicBoxVectors())
        check.setPositions(state.getPositions())
        assert energy_of(check) == state.getPotentialEnergy()._value
        assert np.array_equal(forces_of(check), state.getForces(asNumpy=True)._value)
        volumes.add(state.getPeriodicBoxVolume()._value)
    assert len(volumes) > 3


def test_list_is_kept_between_steps():
    atoms = ethanols(2)
    module = script_for_openmm(toy_model(), atoms.numbers.tolist(), periodic=True)
    positions, box = atoms.positions / 10, torch.tensor(atoms.cell.array / 10)
    rng = np.random.default_rng(0)
    for _ in range(20):
        positions += 0.001 * rng.normal(size=positions.shape)
        module(torch.tensor(positions), box)
    assert 1 <= module.seen.lists.near.builds <= 3


@pytest.mark.parametrize("whole", [True, False])
def test_barostat_keeps_molecules_whole(whole):
    atoms = ethanols(2)
    made = create_system(atoms, toy_model(), keep_molecules=whole)
    made.system.addForce(openmm.MonteCarloBarostat(500, 300, 1))
    # atoms as good as standing still: what moves them is the barostat
    simulation = simulation_of(made, openmm.VerletIntegrator(1e-9))
    before = simulation.context.getState(positions=True)
    simulation.step(20)
    after = simulation.context.getState(positions=True)
    assert after.getPeriodicBoxVolume() != before.getPeriodicBoxVolume()
    start, end = (state.getPositions(asNumpy=True)._value.reshape(8, 9, 3) for state in (before, after))
    inside = [np.linalg.norm(r[:, :, None] - r[:, None, :], axis=-1) for r in (start, end)]
    assert (np.abs(inside[0] - inside[1]).max() < 1e-6) == whole


@pytest.mark.parametrize("backend", BACKENDS)
def test_checkpoint_continues_to_the_bit(backend):
    def new():
        made = create_system(ethanols(2), toy_model(), backend=backend)
        made.system.addForce(openmm.MonteCarloBarostat(2000, 300, 5))
        return simulation_of(made)

    first = new()
    first.step(10)  # a multiple of the barostat's interval, whose step count is not in OpenMM's checkpoints
    saved = first.context.createCheckpoint()
    first.step(12)
    second = new()
    second.context.loadCheckpoint(saved)
    second.step(12)
    ends = [s.context.getState(positions=True).getPositions(asNumpy=True)._value for s in (first, second)]
    assert np.array_equal(*ends)


@pytest.mark.parametrize("name", ["open", "triclinic"])
def test_energy_is_conserved(name):
    made = create_system(structure(name), toy_model())
    simulation = simulation_of(made, openmm.VerletIntegrator(0.0005))
    total_energies = []
    for _ in range(10):
        simulation.step(15)
        state = simulation.context.getState(energy=True)
        total_energies.append((state.getPotentialEnergy() + state.getKineticEnergy())._value)
    kinetic = state.getKineticEnergy()._value
    assert np.ptp(total_energies) < 1e-3 * kinetic


@pytest.mark.parametrize("backend", BACKENDS)
def test_minimiser_goes_down(backend):
    made = create_system(structure("triclinic"), toy_model(), backend=backend)
    context = context_of(made.system, made.positions_nm)
    energy = energy_of(context)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=50)
    assert energy_of(context) < energy - 50


def test_files_of_a_run(tmp_path, capsys):
    args = run_parser(None).parse_args(["--output", str(tmp_path / "run"), "--steps", "4", "--interval", "2"])
    made = create_system(ethanols(1, spacing=8.0), toy_model())
    run(new_simulation(made.topology, made.system, made.positions_nm, 300.0, args), args)
    table = (args.output / "log.csv").read_text().splitlines()
    assert table[0].startswith('#"Step","Time (ps)","Potential Energy (kJ/mole)"')
    assert [line.split(",")[0] for line in table[1:]] == ["2", "4"]
    topology = app.PDBFile(str(args.output / "topology.pdb")).topology
    assert (topology.getNumAtoms(), topology.getNumBonds()) == (9, 8)
    frames = mdtraj.load(args.output / "trajectory.dcd", top=args.output / "topology.pdb")
    assert frames.n_frames == 2
    assert "100.0%" in capsys.readouterr().out
    with pytest.raises(So3kError, match="exists already"):
        new_simulation(made.topology, made.system, made.positions_nm, 300.0, args)
    args.overwrite = True  # the same seed gives the same run
    again = new_simulation(made.topology, made.system, made.positions_nm, 300.0, args)
    again.step(args.steps)
    positions = again.context.getState(positions=True).getPositions(asNumpy=True)._value
    np.testing.assert_allclose(frames.xyz[-1], positions, atol=1e-5)


def test_unknown_platform_is_refused(tmp_path):
    args = run_parser(None).parse_args(["--output", str(tmp_path), "--platform", "Abacus"])
    made = create_system(["O"], toy_model())
    with pytest.raises(So3kError, match="no platform Abacus here: choose one of Reference, CPU"):
        new_simulation(made.topology, made.system, np.zeros((1, 3)), 300.0, args)
