"""Stops OpenMM runs that have exploded, and names the atoms."""

import warnings
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from so3k_md.engines.openmm.input import numbers_of
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.structure.bonds import covalent_radii
from so3k_md.units import BOLTZMANN_EV_K, EV_IN_KJ_MOL, NM_IN_ANGSTROM

# The strongest bond has 11.1 eV (CO). At 1000 K an atom has 2 eV in one of 1e9 checks.
FASTEST = 12.0  # eV, kinetic energy of an atom
HOTTEST = 10_000.0  # K, of two atoms or more


class ExplosionGuard:
    """A reporter that stops a run if an atom exceeds FASTEST or the temperature exceeds HOTTEST.

    Place it before the reporters that write frames, so that the last frame of a file is valid. It needs no
    evaluation of energy or forces.

    Args:
        interval: steps between checks.
    """

    def __init__(self, interval: int):
        self.interval = interval
        self.last_good: int | None = None  # step
        self.masses: NDArray[np.float64] | None = None  # Da, read at the first check

    def describeNextReport(self, simulation: app.Simulation) -> dict[str, Any]:
        """The step of the next check, and the data that it needs."""
        steps = self.interval - simulation.currentStep % self.interval
        return {"steps": steps, "periodic": False, "include": ["positions", "velocities"]}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Check positions and velocities.

        Raises:
            So3kError: the run has exploded; names step, temperature, the fastest atom and the longest bond.
        """
        if self.masses is None:
            self.masses = masses_of(simulation.system)
            warn_of_unused_box(simulation.system, state)
        velocities = state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond)
        kinetic_ev = 0.5 * self.masses * np.square(velocities).sum(1) / EV_IN_KJ_MOL
        fastest, moving = int(kinetic_ev.argmax()), int((self.masses > 0).sum())
        temperature_k = 2 / 3 * kinetic_ev.sum() / max(moving, 1) / BOLTZMANN_EV_K
        # NaN is not below any limit
        if kinetic_ev[fastest] <= FASTEST and (moving < 2 or temperature_k <= HOTTEST):
            self.last_good = simulation.currentStep
            return
        speed = np.linalg.norm(velocities[fastest]) * NM_IN_ANGSTROM / 1000
        last = "no earlier step was checked" if self.last_good is None else f"step {self.last_good} was valid"
        bond = longest_bond(simulation.topology, state)
        raise So3kError(
            f"the run has exploded by step {simulation.currentStep}: {temperature_k:.3g} K, atom {fastest} "
            f"moves at {speed:.2g} Å/fs{bond}; {last}: take a shorter time step, minimise first, or check "
            "the model"
        )


def masses_of(system: openmm.System) -> NDArray[np.float64]:
    """Masses of all particles (n,), Da."""
    masses = [system.getParticleMass(k).value_in_unit(unit.dalton) for k in range(system.getNumParticles())]
    return np.array(masses)


def warn_of_unused_box(system: openmm.System, state: openmm.State) -> None:
    """Warn of a box set on the Context of an open system; OpenMM does not pass it to any Force."""
    if system.usesPeriodicBoundaryConditions():
        return
    default, box = (
        np.array([vector.value_in_unit(unit.angstrom) for vector in owner])
        for owner in (system.getDefaultPeriodicBoxVectors(), state.getPeriodicBoxVectors())
    )
    if not np.allclose(default, box):
        warnings.warn(
            f"the Context has a box, {np.round(np.diag(box), 2).tolist()} Å, but the system is open: "
            "OpenMM ignores the box; make the System from a topology with a box",
            So3kWarning,
            stacklevel=2,
        )


def longest_bond(topology: app.Topology, state: openmm.State) -> str:
    """A clause that names the longest bond, relative to its covalent radii; empty without bonds."""
    bonds = np.array([(first.index, second.index) for first, second in topology.bonds()]).reshape(-1, 2)
    if not len(bonds):
        return ""
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    radii = covalent_radii(numbers_of(topology))
    vectors = positions[bonds[:, 0]] - positions[bonds[:, 1]]
    if topology.getPeriodicBoxVectors() is not None:
        box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
        for axis in (2, 1, 0):  # in OpenMM's reduced form this gives nearly the shortest vector
            vectors -= np.outer(np.round(vectors[:, axis] / box[axis, axis]), box[axis])
    lengths = np.linalg.norm(vectors, axis=1)
    worst = int((lengths / np.maximum(radii[bonds].sum(1), 0.1)).argmax())
    first, second = bonds[worst].tolist()
    return f", the bond of atoms {first} and {second} is {lengths[worst]:.3g} Å long"
