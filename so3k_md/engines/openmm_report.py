"""Charges, Hirshfeld ratios, dipole and parts of the energy along an OpenMM run."""

import io
import pickle
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import openmm
import torch
from ase import Atoms
from ase.io.extxyz import write_extxyz
from numpy.typing import NDArray
from openmm import app, unit

from so3k_md.engines.openmm_backend import as_torchforce
from so3k_md.errors import So3kError
from so3k_md.files import check_output
from so3k_md.graph import PARTS
from so3k_md.units import NM_IN_ANGSTROM

COLUMNS = (
    '#"Step"',
    '"Time (ps)"',
    *(f'"{name.replace("_", " ").title()} (kJ/mole)"' for name in PARTS),
    *(f'"Dipole {axis} (e*A)"' for axis in "XYZ"),
)


class Physics(NamedTuple):
    """What a model with electrostatics says of the atoms that it describes."""

    charges: NDArray[np.float64]  # (atoms,), e
    hirshfeld_ratios: NDArray[np.float64]  # (atoms,)
    energy_parts: dict[str, float]  # by `graph.PARTS`, kJ/mol
    dipole: NDArray[np.float64]  # (3,), e Å


class So3kReporter:
    """Writes dipole and parts of the energy to a table, or charges and Hirshfeld ratios too as extended XYZ.

    A row of the table, `*.csv`, holds step, time, the parts in kJ/mol and the dipole Σ q r in e Å; a frame of
    `*.xyz` or `*.extxyz` the same beside the atoms that the model describes, in Å. The dipole is that of the
    unwrapped positions; of a charged system it depends on the origin. Each report costs a time step.

    Args:
        file: ending in .csv, .xyz or .extxyz.
        interval: steps between reports.
        system: that of the simulation, which holds the model.
        append: to the file of a run that is continued.
        overwrite: replace the file of an earlier run.

    Raises:
        So3kError: another ending, a file that cannot be written, or no model with electrostatics.
    """

    def __init__(
        self,
        file: str | Path,
        interval: int,
        system: openmm.System,
        append: bool = False,
        overwrite: bool = False,
    ):
        self.path = Path(file)
        self.interval = interval
        self.table = self.path.suffix == ".csv"
        if self.path.suffix not in (".csv", ".xyz", ".extxyz"):
            raise So3kError(f"{file}: reports are written as .csv, .xyz or .extxyz: choose one of them")
        self.module = physics_module(system)
        check_output(self.path, overwrite or append)
        fresh = not (append and self.path.exists() and self.path.stat().st_size)
        self.out = open(self.path, "w" if fresh else "a")  # noqa: SIM115  open as long as the simulation
        if self.table and fresh:
            self.write(",".join(COLUMNS) + "\n")

    def describeNextReport(self, simulation: app.Simulation) -> dict[str, Any]:
        """When the next report is due, and that it needs unwrapped positions."""
        steps = self.interval - simulation.currentStep % self.interval
        return {"steps": steps, "periodic": False, "include": ["positions"]}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Append one row or frame, in one write."""
        found = evaluate_physics(self.module, state)
        step, time_ps = simulation.currentStep, state.getTime().value_in_unit(unit.picosecond)
        if self.table:
            numbers = [time_ps, *found.energy_parts.values(), *found.dipole]
            self.write(",".join([str(step), *(f"{number:.10g}" for number in numbers)]) + "\n")
        else:
            self.write(frame_text(self.module, state, found, {"step": step, "time_ps": time_ps}))

    def write(self, text: str) -> None:
        """Append and flush, so that a run that is killed leaves whole rows."""
        self.out.write(text)
        self.out.flush()

    def __del__(self) -> None:
        if hasattr(self, "out"):
            self.out.close()


def evaluate_physics(module: torch.jit.ScriptModule, state: openmm.State) -> Physics:
    """What the model says of a State that has positions.

    Args:
        module: of `physics_module`.
        state: its positions, and its box where the module is periodic.
    """
    arrays = [state.getPositions(asNumpy=True)]
    if module.periodic:
        arrays.append(state.getPeriodicBoxVectors(asNumpy=True))
    found = module.report(*(torch.tensor(a.value_in_unit(unit.nanometer)) for a in arrays))
    charges, ratios, parts, dipole = (tensor.numpy(force=True).astype(np.float64) for tensor in found)
    return Physics(charges, ratios, dict(zip(PARTS, parts.tolist(), strict=True)), dipole)


def frame_text(
    module: torch.jit.ScriptModule, state: openmm.State, found: Physics, info: dict[str, float]
) -> str:
    """A frame of extended XYZ with the atoms that the model describes, energies in kJ/mol."""
    rows = module.seen.rows.numpy(force=True)
    positions_nm = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)[rows]
    atoms = Atoms(module.seen.species.numpy(force=True), NM_IN_ANGSTROM * positions_nm)
    if module.periodic:
        atoms.cell = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
        atoms.pbc = True
    atoms.arrays |= {"charges": found.charges, "hirshfeld_ratios": found.hirshfeld_ratios}
    atoms.info |= info | {"dipole": found.dipole}
    atoms.info |= {f"{name}_kj_mol": value for name, value in found.energy_parts.items()}
    text = io.StringIO()
    write_extxyz(text, [atoms])
    return text.getvalue()


def physics_module(system: openmm.System) -> torch.jit.ScriptModule:
    """The scripted module of a model with electrostatics that a System holds, a copy of it.

    Raises:
        So3kError: there is none.
    """
    if module := find_physics(system):
        return module
    raise So3kError("the system has no model with electrostatics: there are no charges to report")


def find_physics(system: openmm.System) -> torch.jit.ScriptModule | None:
    """The same, or None."""
    modules = (module for force in system.getForces() for module in modules_of(force))
    return next((module for module in modules if module.has_long_range), None)


def modules_of(force: openmm.Force) -> list[torch.jit.ScriptModule]:
    """The modules of `script_for_openmm` in a Force, also where openmm-ml interpolates."""
    if isinstance(force, openmm.CustomCVForce):
        inner = [force.getCollectiveVariable(k) for k in range(force.getNumCollectiveVariables())]
        return [module for one in inner for module in modules_of(one)]
    found: Any = None
    if isinstance(force, openmm.PythonForce):
        # the only way from Python to the function is that by which the Force is copied
        text = ElementTree.fromstring(openmm.XmlSerializer.serialize(force)).get("function", "")
        found = getattr(pickle.loads(bytes.fromhex(text)), "module", None)
    elif torchforce := as_torchforce(force):
        found = torchforce.getModule()
    return [found] if hasattr(found, "report") else []
