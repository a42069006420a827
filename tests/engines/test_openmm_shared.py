"""Models behind the TorchForces of a process: compiled once, without Python's lock, sealed."""

import gc
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openmm
import pytest
import torch
from ase.build import molecule
from openmm import unit
from test_sharing import resident_mb

from so3k_md.engines.openmm import create_system
from so3k_md.engines.openmm.module import script_for_openmm
from so3k_md.kernels.choose import load_accelerated

MODEL = "cumulene-local"
SHIPPED = ["ethanol-rmd17", "cumulene-local", "cumulene-sphc", "cumulene-efa"]
pytestmark = pytest.mark.filterwarnings("ignore:the energy of .+ arbitrary")


def made_of(backend, dtype="float32", **options):
    return create_system(molecule("C2H6", **options), MODEL, backend=backend, dtype=dtype)


def context_of(system, integrator=None):
    integrator = integrator or openmm.VerletIntegrator(0.0005)
    return openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"))


def minimised(made):
    class Reporter(openmm.MinimizationReporter):
        def report(self, iteration, x, grad, args):
            return False

    context = context_of(made.system)
    context.setPositions(made.positions_nm)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 3, Reporter())
    return context.getState(energy=True).getPotentialEnergy()._value


def ring_polymer_energy(made):
    integrator = openmm.RPMDIntegrator(2, 300, 1, 0.0005)
    integrator.setApplyThermostat(False)
    context = context_of(made.system, integrator)  # noqa: F841  the integrator does not keep it
    for k in range(2):
        integrator.setPositions(k, made.positions_nm * unit.nanometer)
        integrator.setVelocities(k, np.zeros((8, 3)) * unit.nanometer / unit.picosecond)
    integrator.step(1)
    return integrator.getTotalEnergy()._value


def pressure(made):
    barostat = openmm.MonteCarloBarostat(1, 300)
    made.system.addForce(barostat)
    context = context_of(made.system)
    context.setPositions(made.positions_nm)
    velocities = np.random.default_rng(1).normal(size=(8, 3))
    context.setVelocities(velocities * unit.nanometer / unit.picosecond)
    return barostat.computeCurrentPressure(context)._value


def perturbation(made):
    force = openmm.ATMForce(0.5, 0.5, 0, 0, 0, 0, 0, 0, 1)
    system = openmm.System()
    for atom in range(8):
        system.addParticle(1.0)
        force.addParticle(openmm.Vec3(0, 0, 5.0 * (atom == 7)))
    force.addForce(openmm.XmlSerializer.clone(made.system.getForce(0)))
    system.addForce(force)
    context = context_of(system)
    context.setPositions(made.positions_nm)
    return force.getPerturbationEnergy(context)[0]._value


# OpenMM's wrapper keeps Python's lock while these ask for forces, under which torch's engine refuses to run
UNDER_LOCK = [(minimised, {}), (ring_polymer_energy, {}), (perturbation, {})]
UNDER_LOCK += [(pressure, {"cell": [20.0] * 3, "pbc": True})]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("call", "options"), UNDER_LOCK)
def test_calls_under_pythons_lock(call, options, dtype):
    found, expected = (call(made_of(backend, dtype, **options)) for backend in ("torchforce", "pythonforce"))
    assert found == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_contexts_of_one_system_leave_no_memory_behind(dtype):
    made, marks = made_of("torchforce", dtype), []
    for k in range(8):
        context = context_of(made.system)
        context.setPositions(made.positions_nm)
        context.getState(energy=True)
        del context
        gc.collect()
        marks += [resident_mb()] if k in (1, 7) else []
    assert marks[1] - marks[0] < 20  # MB; 120 where each has a copy of the model


def test_contexts_in_threads_do_not_disturb_each_other():
    made = made_of("torchforce")

    def positions_after(seed: int) -> np.ndarray:
        context = context_of(made.system)
        context.setPositions(made.positions_nm)
        context.setVelocities(0.5 * np.random.default_rng(seed).normal(size=(8, 3)))
        context.getIntegrator().step(50)
        return context.getState(positions=True).getPositions(asNumpy=True)._value

    expected = [positions_after(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(positions_after, range(3)))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", SHIPPED)
def test_frozen_models_hold_no_module(name):
    """Else freezing deletes its methods, and an error that refers to them ends the process."""
    model = load_accelerated(name, kernels="on")
    frozen = torch.jit.freeze(model.eval(), preserved_attrs=["gradient"])
    assert "prim::GetAttr" not in str(frozen.gradient.graph)


@pytest.mark.parametrize("name", SHIPPED[1:])
def test_first_calls_happen_within_a_torchforce(name):
    """Tables too are made there; a model of other weights than any that was called in this process."""
    model = load_accelerated(name, kernels="on")
    content = torch.jit.load(io.BytesIO(model.save_to_buffer()))
    content.key = f"tables of {name} that nobody has made yet"
    atoms = molecule("C2H6")
    energies = []
    for given in (content, load_accelerated(name, kernels="off")):
        context = context_of(create_system(atoms, given, backend="torchforce").system)
        context.setPositions(atoms.positions / 10)
        energies.append(context.getState(energy=True).getPotentialEnergy()._value)
    assert energies[0] == pytest.approx(energies[1], abs=1e-2)


def test_a_damaged_model_in_a_system_is_refused():
    model = load_accelerated(MODEL, kernels="on")
    weights = next(p for p in model.parameters() if p.numel() > 1000).numpy(force=True).tobytes()
    written = bytearray(script_for_openmm(model, [6, 1, 1, 1, 1]).save_to_buffer())
    at = written.index(weights) + len(weights) // 2
    torch.jit.load(io.BytesIO(written))
    written[at] ^= 0x10
    with pytest.raises(RuntimeError, match=r"\[so3k\] the model in this System is damaged"):
        torch.jit.load(io.BytesIO(written))
