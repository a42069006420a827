"""One structure evaluated by each engine, and the differences from PyTorch."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openmm
import torch
from ase import Atoms
from numpy.typing import NDArray
from openmm import unit

from so3k_md import load
from so3k_md.engines.ase import So3kCalculator
from so3k_md.engines.openmm import create_system
from so3k_md.errors import So3kError
from so3k_md.model.forces import evaluate
from so3k_md.needs import needs_of
from so3k_md.structure.build import build_graph
from so3k_md.units import EV_IN_KJ_MOL, NM_IN_ANGSTROM

ENERGY_GATE = 1e-9  # relative
FORCE_GATE = 1e-8  # eV/Å


class SinglePoint(NamedTuple):
    """Energy and forces of one structure by one code."""

    energy: float  # eV
    forces: NDArray[np.float64]  # (atoms, 3), eV/Å


def pytorch_point(atoms: Atoms, model: Path) -> SinglePoint:
    """The reference: the model itself."""
    module: Any = load(model, dtype=torch.float64)
    graph = build_graph(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, needs_of(module).cutoff)
    result = evaluate(module, graph, n_frames=1)
    return SinglePoint(result.energy.item(), result.forces.numpy(force=True))


def ase_point(atoms: Atoms, model: Path) -> SinglePoint:
    """The same by ASE."""
    fresh = atoms.copy()
    fresh.calc = So3kCalculator(model, dtype="float64")
    return SinglePoint(fresh.get_potential_energy(), fresh.get_forces())


def openmm_point(atoms: Atoms, model: Path) -> SinglePoint:
    """The same by OpenMM."""
    built = create_system(atoms, model, dtype="float64")
    integrator = openmm.VerletIntegrator(1.0 * unit.femtosecond)
    context = openmm.Context(built.system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(built.positions_nm)
    state = context.getState(energy=True, forces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    return SinglePoint(energy / EV_IN_KJ_MOL, forces / EV_IN_KJ_MOL / NM_IN_ANGSTROM)


def agreement(points: dict[str, SinglePoint]) -> str:
    """A table of differences from the first code.

    Raises:
        So3kError: one of them is larger than its gate.
    """
    (_, reference), *_ = points.items()
    lines = [f"{'code':<16} {'energy / eV':>22} {'relative ΔE':>12} {'max |ΔF| / eV/Å':>16}"]
    missed = []
    for name, point in points.items():
        energy = abs(point.energy / reference.energy - 1)
        force = np.abs(point.forces - reference.forces).max()
        lines.append(f"{name:<16} {point.energy:>22.12f} {energy:>12.1e} {force:>16.1e}")
        if not (energy <= ENERGY_GATE and force <= FORCE_GATE):
            missed.append(name)
    table = "\n".join(lines)
    if missed:
        print(table)
        raise So3kError(
            f"{', '.join(missed)} and PyTorch differ by more than {ENERGY_GATE:g} in relative energy or "
            f"{FORCE_GATE:g} eV/Å in forces: see so3k-md doctor"
        )
    return table
