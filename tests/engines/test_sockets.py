"""The calculator behind a socket of i-PI's protocol: the driver gets what the calculator says."""

import os
import threading

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.socketio import SocketClient, SocketIOCalculator
from ase.md import VelocityVerlet
from so3lr_toys import ammonium, so3lr_toy, waters

from so3k_md.engines.ase import So3kCalculator


def in_a_box(atoms: Atoms) -> Atoms:
    """An open molecule with the cell that i-PI sends for it."""
    atoms.set_cell([40.0, 41.0, 42.0])
    return atoms


@pytest.fixture
def served():
    """Puts a calculator behind a unix socket and gives atoms the other end of it."""
    threads, servers = [], []

    def connect(atoms: Atoms, calculator: So3kCalculator, use_stress: bool) -> Atoms:
        there, here = atoms.copy(), atoms.copy()
        there.calc = calculator
        there.set_cell(None)  # the driver says it
        name = f"so3k_{os.getpid()}_{len(servers)}"
        servers.append(SocketIOCalculator(unixsocket=name, timeout=30))
        here.calc = servers[-1]
        client = SocketClient(unixsocket=name, timeout=30)
        threads.append(threading.Thread(target=client.run, args=(there, use_stress), daemon=True))
        threads[-1].start()
        return here

    yield connect
    for server in servers:
        server.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("structure", "model"),
    [
        (lambda: molecule("CH3CH2OH"), "ethanol-rmd17"),
        (lambda: in_a_box(molecule("CH3CH2OH")), "ethanol-rmd17"),
        (lambda: in_a_box(ammonium()), so3lr_toy),
        (lambda: waters(2), so3lr_toy),
    ],
    ids=["open", "open-in-a-box", "charged", "periodic"],
)
def test_a_driver_gets_what_the_calculator_says(served, structure, model):
    atoms = structure()
    calculator = So3kCalculator(model if isinstance(model, str) else model(), dtype="float64")
    periodic = bool(atoms.pbc.any())
    driven, alone = served(atoms, calculator, periodic), atoms.copy()
    alone.calc = So3kCalculator(calculator.model)
    for step in range(3):
        for one in (driven, alone):
            one.positions[0] += 0.02 * step
        assert driven.get_potential_energy() == pytest.approx(alone.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(driven.get_forces(), alone.get_forces(), atol=1e-9)
        if periodic:
            np.testing.assert_allclose(driven.get_stress(), alone.get_stress(), atol=1e-11)


def test_dynamics_through_a_socket_conserve_energy(served):
    atoms = served(molecule("CH3CH2OH"), So3kCalculator("ethanol-rmd17", dtype="float64"), False)
    atoms.set_velocities(np.random.default_rng(1).normal(scale=0.005, size=(9, 3)))
    energies = []
    dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
    for _ in dynamics.irun(40):
        energies.append(atoms.get_total_energy())
    assert np.ptp(energies) < 0.02
    assert atoms.get_kinetic_energy() > 0.01


def test_an_open_molecule_has_no_stress_for_a_driver():
    """`use_stress` of the client must stay False, its default, for open molecules."""
    atoms = in_a_box(molecule("H2O"))
    atoms.calc = So3kCalculator(so3lr_toy())
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
