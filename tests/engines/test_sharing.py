"""Calculators and Systems that come and go, travel to other processes, and are copied."""

import copy
import gc
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import openmm
import pytest
from ase.build import molecule

from so3k_md.engines.ase import So3kCalculator
from so3k_md.engines.openmm import create_system

MODEL = "cumulene-local"
pytestmark = pytest.mark.filterwarnings("ignore:the energy of .+ arbitrary")
GROWTH_MB = 40


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def energy(calculator: So3kCalculator) -> float:
    atoms = molecule("C2H6")
    atoms.calc = calculator
    return float(atoms.get_potential_energy())


def n_particles(system: openmm.System) -> int:
    return system.getNumParticles()


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_calculators_are_pickled_and_copied(kernels):
    calculator = So3kCalculator(MODEL, kernels=kernels)
    expected = energy(calculator)
    copies = pickle.loads(pickle.dumps(calculator)), copy.deepcopy(calculator)
    assert [energy(each) for each in copies] == [expected, expected]


def test_spawned_workers_take_calculators_and_systems():
    made = create_system(molecule("C2H6"), MODEL)
    calculator = So3kCalculator(MODEL)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(n_particles, made.system).result(timeout=120) == 8
        assert pool.submit(energy, calculator).result(timeout=120) == pytest.approx(energy(calculator))


def test_calculators_leave_no_memory_behind():
    marks = []
    for k in range(30):
        energy(So3kCalculator(MODEL))
        gc.collect()
        marks += [resident_mb()] if k in (4, 29) else []
    assert marks[1] - marks[0] < GROWTH_MB


@pytest.mark.parametrize("backend", ["torchforce", "pythonforce"])
def test_systems_leave_no_memory_behind(backend):
    marks = []
    for k in range(8):
        made = create_system(molecule("C2H6"), MODEL, backend=backend)
        platform = openmm.Platform.getPlatformByName("CPU")
        context = openmm.Context(made.system, openmm.VerletIntegrator(0.0005), platform)
        context.setPositions(made.positions_nm)
        context.getState(energy=True)
        del context, made
        gc.collect()
        marks += [resident_mb()] if k in (2, 7) else []
    assert marks[1] - marks[0] < GROWTH_MB
