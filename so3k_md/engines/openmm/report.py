"""Writes charges, Hirshfeld ratios, dipole and parts of the energy during an OpenMM run."""

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

from so3k_md.engines.openmm.backend import as_torchforce
from so3k_md.engines.openmm.guard import ExplosionGuard
from so3k_md.errors import So3kError
from so3k_md.files import check_output
from so3k_md.graph import PARTS
from so3k_md.needs import needs_of
from so3k_md.units import NM_IN_ANGSTROM

REGION_COLUMNS = (
    *(f"{name.replace('_', ' ').title()} (kJ/mole)" for name in PARTS),
    *(f"Dipole {axis} (e*A)" for axis in "XYZ"),
)


class Physics(NamedTuple):
    """Predictions of a model with electrostatics for the atoms that it describes."""

    charges: NDArray[np.float64]  # (atoms,), e
    hirshfeld_ratios: NDArray[np.float64]  # (atoms,)
    energy_parts: dict[str, float]  # by `graph.PARTS`, kJ/mol
    dipole: NDArray[np.float64]  # (3,), e Å


class So3kReporter:
    """Writes dipole and parts of the energy to a table, or also charges and Hirshfeld ratios to extended XYZ.

    A row of the table, `*.csv`, contains step, time, the parts in kJ/mol and the dipole Σ q r in e Å. A frame
    of `*.xyz` or `*.extxyz` contains the same and the atoms that the model describes, in Å. The dipole is
    that of the unwrapped positions; for a charged system it depends on the origin. Each report takes the time
    of one step.

    Regions are the models with electrostatics of a System, in the order of its Forces. If there are several,
    the names of their columns start with "Region 1", those of a frame's values with "region_1_", and the
    array `region` of a frame gives the region of each atom. A run that has exploded is stopped; see
    `ExplosionGuard`.

    Args:
        file: ending in .csv, .xyz or .extxyz.
        interval: steps between reports.
        system: the System of the simulation, with the model.
        append: append to the file of a run that is continued.
        overwrite: replace the file of an earlier run.

    Raises:
        So3kError: another ending, a file that cannot be written or continued, no model with electrostatics,
            or frames for regions that share atoms.
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
        self.table = self.path.suffix == ".csv"
        if self.path.suffix not in (".csv", ".xyz", ".extxyz"):
            raise So3kError(f"{file}: reports are written as .csv, .xyz or .extxyz: choose one of them")
        self.guard = ExplosionGuard(interval)
        self.modules = physics_modules(system)
        if not self.table:
            check_no_shared_atoms(self.modules, self.path)
        check_output(self.path, overwrite or append)
        fresh = not (append and self.path.exists() and self.path.stat().st_size)
        head = header(len(self.modules))
        if self.table and not fresh:
            check_header(self.path, head)
        self.out = open(self.path, "w" if fresh else "a")  # noqa: SIM115  open as long as the simulation
        if self.table and fresh:
            self.write(head + "\n")

    def describeNextReport(self, simulation: app.Simulation) -> dict[str, Any]:
        """When the next report is due, and that it needs unwrapped positions and velocities."""
        return self.guard.describeNextReport(simulation)

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Append one row or frame, in one write.

        Raises:
            So3kError: the run has exploded.
        """
        self.guard.report(simulation, state)
        found = [evaluate_physics(module, state) for module in self.modules]
        step, time_ps = simulation.currentStep, state.getTime().value_in_unit(unit.picosecond)
        if self.table:
            numbers = [time_ps]
            for region in found:
                numbers += [*region.energy_parts.values(), *region.dipole]
            self.write(",".join([str(step), *(f"{number:.10g}" for number in numbers)]) + "\n")
        else:
            self.write(frame_text(self.modules, state, found, {"step": step, "time_ps": time_ps}))

    def write(self, text: str) -> None:
        """Append and flush, so that a run that is killed leaves whole rows."""
        self.out.write(text)
        self.out.flush()

    def __del__(self) -> None:
        if hasattr(self, "out"):
            self.out.close()


def evaluate_physics(module: torch.jit.ScriptModule, state: openmm.State) -> Physics:
    """Predictions of the model for a State that has positions.

    Args:
        module: one of `physics_modules`.
        state: with positions, and with a box if the module is periodic.
    """
    arrays = [state.getPositions(asNumpy=True)]
    if module.periodic:
        arrays.append(state.getPeriodicBoxVectors(asNumpy=True))
    found = module.report(*(torch.tensor(a.value_in_unit(unit.nanometer)) for a in arrays))
    charges, ratios, parts, dipole = (tensor.numpy(force=True).astype(np.float64) for tensor in found)
    return Physics(charges, ratios, dict(zip(PARTS, parts.tolist(), strict=True)), dipole)


def header(n_regions: int) -> str:
    """The first line of a table for a number of regions."""
    names = [""] if n_regions == 1 else [f"Region {k} " for k in range(1, n_regions + 1)]
    columns = ["Time (ps)", *(name + column for name in names for column in REGION_COLUMNS)]
    return ",".join(['#"Step"', *(f'"{column}"' for column in columns)])


def check_header(path: Path, head: str) -> None:
    """Refuse to continue a table that has other columns.

    Args:
        path: of the table.
        head: its first line, as it would be written now.

    Raises:
        So3kError: the first line of the file differs.
    """
    with open(path, errors="replace") as file:
        found = file.readline().strip()
    if found != head:
        raise So3kError(
            f"{path}: its columns are not those of the {head.count('Dipole X')} regions of this system: "
            "append=True continues the table of the same system only; choose another file"
        )


def check_no_shared_atoms(modules: list[torch.jit.ScriptModule], path: Path) -> None:
    """Refuse frames for regions that share atoms, because a frame has one charge for each atom.

    Raises:
        So3kError: names an atom that is in two regions.
    """
    rows = np.concatenate([module.seen.rows.numpy(force=True) for module in modules])
    atoms, counts = np.unique(rows, return_counts=True)
    if (counts > 1).any():
        raise So3kError(
            f"{path}: several models describe atom {atoms[counts > 1][0]}, a frame contains one charge for "
            "each atom: report to a .csv file"
        )


def frame_text(
    modules: list[torch.jit.ScriptModule], state: openmm.State, found: list[Physics], info: dict[str, float]
) -> str:
    """A frame of extended XYZ with the atoms that the models describe, energies in kJ/mol."""
    positions_nm = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    atoms = Atoms(info=info)
    for k, (module, physics) in enumerate(zip(modules, found, strict=True), start=1):
        rows = module.seen.rows.numpy(force=True)
        part = Atoms(module.seen.species.numpy(force=True), NM_IN_ANGSTROM * positions_nm[rows])
        part.arrays |= {"charges": physics.charges, "hirshfeld_ratios": physics.hirshfeld_ratios}
        name = ""
        if len(modules) > 1:
            name = f"region_{k}_"
            part.arrays["region"] = np.full(len(part), k)
        part.info |= {f"{name}dipole": physics.dipole}
        part.info |= {f"{name}{kind}_kj_mol": value for kind, value in physics.energy_parts.items()}
        atoms += part
        atoms.info |= part.info
    if any(module.periodic for module in modules):
        atoms.cell = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
        atoms.pbc = True
    text = io.StringIO()
    write_extxyz(text, [atoms])
    return text.getvalue()


def physics_modules(system: openmm.System) -> list[torch.jit.ScriptModule]:
    """Copies of the scripted modules of the models with electrostatics in a System.

    Raises:
        So3kError: there is none.
    """
    if modules := find_physics(system):
        return modules
    raise So3kError("the system has no model with electrostatics: there are no charges to report")


def find_physics(system: openmm.System) -> list[torch.jit.ScriptModule]:
    """`physics_modules`, or an empty list if there is none."""
    modules = [module for force in system.getForces() for module in modules_of(force)]
    return [module for module in modules if needs_of(module).has_long_range]


def modules_of(force: openmm.Force) -> list[torch.jit.ScriptModule]:
    """The modules of `script_for_openmm` in a Force, also where openmm-ml interpolates."""
    if isinstance(force, openmm.CustomCVForce):
        inner = [force.getCollectiveVariable(k) for k in range(force.getNumCollectiveVariables())]
        return [module for one in inner for module in modules_of(one)]
    found: Any = None
    if isinstance(force, openmm.PythonForce):
        # Python reaches the function only through the serialisation by which OpenMM copies the Force
        text = ElementTree.fromstring(openmm.XmlSerializer.serialize(force)).get("function", "")
        found = getattr(pickle.loads(bytes.fromhex(text)), "module", None)
    elif torchforce := as_torchforce(force):
        found = torchforce.getModule()
    return [found] if hasattr(found, "report") else []
