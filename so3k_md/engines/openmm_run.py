"""What every OpenMM run needs beside its System: files that the analysis reads, and errors in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openmm
from openmm import app

from so3k_md.engines.openmm_backend import INTERRUPTED
from so3k_md.errors import So3kError
from so3k_md.export.openmm import ERROR_TAG
from so3k_md.files import check_output


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn what went wrong inside the model during a step into one line.

    Raises:
        So3kError: positions that are not finite.
        KeyboardInterrupt: Ctrl-C inside a PythonForce.
    """
    try:
        yield
    except openmm.OpenMMException as error:
        text = str(error)
        if INTERRUPTED in text:
            raise KeyboardInterrupt from error
        if ERROR_TAG not in text and "NaN" not in text:
            raise
        what = (
            text.rpartition(ERROR_TAG)[2].strip().splitlines()[0]
            if ERROR_TAG in text
            else "a position is NaN"
        )
        raise So3kError(f"{what}: minimise first, take a shorter time step, or check the model") from error


def add_reporters(
    simulation: app.Simulation, folder: str | Path, interval: int, overwrite: bool = False
) -> None:
    """Write topology.pdb now, trajectory.dcd (unwrapped) and log.csv every `interval` steps.

    Raises:
        So3kError: one of the files exists already, or the folder cannot be written.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    names = ("topology.pdb", "trajectory.dcd", "log.csv")
    topology, trajectory, table = (str(check_output(Path(folder) / name, overwrite)) for name in names)
    state = simulation.context.getState(positions=True)
    with open(topology, "w") as file:
        app.PDBFile.writeFile(simulation.topology, state.getPositions(), file, keepIds=True)
    periodic = simulation.system.usesPeriodicBoundaryConditions()
    simulation.reporters.append(app.DCDReporter(trajectory, interval, enforcePeriodicBox=False))
    simulation.reporters.append(
        app.StateDataReporter(
            table,
            interval,
            step=True,
            time=True,
            potentialEnergy=True,
            kineticEnergy=True,
            totalEnergy=True,
            temperature=True,
            volume=periodic,
            density=periodic,
            speed=True,
        )
    )
