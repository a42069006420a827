"""Sets up and runs OpenMM simulations: options, output files for the analysis, errors in one line."""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import openmm
from openmm import app, unit

from so3k_md.engines.openmm.backend import INTERRUPTED, as_torchforce, best_platform
from so3k_md.engines.openmm.guard import ExplosionGuard
from so3k_md.engines.openmm.module import ERROR_TAG
from so3k_md.engines.openmm.platform import platform_facts
from so3k_md.engines.openmm.report import So3kReporter, find_physics
from so3k_md.engines.openmm.topology import warn_of_close
from so3k_md.errors import So3kError
from so3k_md.files import check_folder, check_output

FILES = ("trajectory.dcd", "topology.pdb", "log.csv", "physics.csv")


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn an error inside the model during a step into an error of one line.

    Raises:
        So3kError: positions that are not finite, or groups that are too wide for non-local attention.
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
        what = "a position is NaN: minimise first, take a shorter time step, or check the model"
        if ERROR_TAG in text:
            what = text.rpartition(ERROR_TAG)[2].strip().splitlines()[0]
        raise So3kError(what) from error


def run_parser(description: str | None) -> argparse.ArgumentParser:
    """The parser of the options that all runs have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--model", default="ethanol-rmd17", help="exported file, checkpoint or name of a model"
    )
    parser.add_argument("--steps", type=int, default=10_000, help="number of time steps")
    parser.add_argument("--interval", type=int, default=20, help="time steps between frames")
    parser.add_argument("--output", type=Path, required=True, help="folder for the files of the run")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier run")
    parser.add_argument("--platform", help="OpenMM platform; the fastest that works by default")
    parser.add_argument("--seed", type=int, default=1, help="of velocities and thermostat")
    return parser


def new_simulation(
    topology: app.Topology,
    system: openmm.System,
    positions: object,
    temperature_k: float,
    args: argparse.Namespace,
) -> app.Simulation:
    """A Langevin simulation with steps of 0.5 fs, after minimisation, with velocities for the temperature.

    Args:
        topology: of the system.
        system: with all forces.
        positions: (atoms, 3), nm.
        temperature_k: K.
        args: of `run_parser`.

    Raises:
        So3kError: the platform or an output file cannot be used, or the minimisation failed.
    """
    for name in ("steps", "interval"):
        if getattr(args, name) < 1:
            raise So3kError(f"--{name} {getattr(args, name)} is impossible: give 1 or more")
    check_folder(args.output)
    for name in FILES:
        if (args.output / name).exists():
            check_output(args.output / name, args.overwrite)
    integrator = openmm.LangevinMiddleIntegrator(temperature_k, 1.0, 0.0005)
    integrator.setRandomNumberSeed(args.seed)
    simulation = app.Simulation(topology, system, integrator, platform_of(args.platform, system))
    with readable_errors():
        simulation.context.setPositions(positions)
        state = simulation.context.getState(positions=True)
        box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
        given = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        warn_of_close(topology, given, box if system.usesPeriodicBoundaryConditions() else None)
        simulation.minimizeEnergy(maxIterations=100)
        simulation.context.setVelocitiesToTemperature(temperature_k, args.seed)
    return simulation


def run(simulation: app.Simulation, args: argparse.Namespace) -> None:
    """Run the steps, write files and progress, and tell how to analyse the files.

    Raises:
        So3kError: the simulation failed.
    """
    add_reporters(simulation, args.output, args.interval, args.steps, args.overwrite)
    with readable_errors():
        simulation.step(args.steps)
    trajectory, topology, table, _ = (args.output / name for name in FILES)
    print(f"so3k-md analyze {trajectory} --top {topology} --log {table}")


def run_script(main: Callable[[], None]) -> None:
    """Call a script's main; print log messages about the model, and errors of the user as one line."""
    report, screen = logging.getLogger("so3k_md"), logging.StreamHandler(sys.stdout)
    report.addHandler(screen)
    report.setLevel(logging.INFO)
    try:
        main()
    except So3kError as error:
        sys.exit(f"so3k-md: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        report.removeHandler(screen)


def platform_of(name: str | None, system: openmm.System) -> openmm.Platform:
    """The platform with this name, or that of `best_platform`.

    Raises:
        So3kError: OpenMM has no such platform here, or the System would end the process on it.
    """
    torchforce = any(holds_torchforce(force) for force in system.getForces())
    if name is None:
        return best_platform("torchforce" if torchforce else "pythonforce")
    facts = {fact.name: fact for fact in platform_facts()}
    if name not in facts:
        raise So3kError(f"OpenMM has no platform {name} here: choose one of {', '.join(facts)}")
    if torchforce and (fault := facts[name].fault):
        raise So3kError(
            f"a TorchForce ends the process on platform {name} ({fault}): choose another platform or backend "
            "pythonforce"
        )
    return openmm.Platform.getPlatformByName(name)


def holds_torchforce(force: openmm.Force) -> bool:
    """Whether a Force is a TorchForce or contains one, as in Systems in which openmm-ml interpolates."""
    if isinstance(force, openmm.CustomCVForce):
        inner = (force.getCollectiveVariable(k) for k in range(force.getNumCollectiveVariables()))
        return any(holds_torchforce(one) for one in inner)
    return as_torchforce(force) is not None


def add_reporters(
    simulation: app.Simulation,
    folder: str | Path,
    interval: int,
    total_steps: int = 0,
    overwrite: bool = False,
) -> None:
    """Write topology.pdb now, trajectory.dcd (unwrapped) and log.csv every `interval` steps.

    For a model with electrostatics also write physics.csv: the dipole and the parts of the energy. A run that
    explodes is stopped before a frame of the explosion is written.

    Args:
        simulation: with positions.
        folder: created if it does not exist.
        interval: steps between frames.
        total_steps: steps of the run, for printing the progress; 0 prints none.
        overwrite: replace files of an earlier run.

    Raises:
        So3kError: one of the files exists already, or the folder cannot be written.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    trajectory, topology, table, physics = (
        str(check_output(Path(folder) / name, overwrite)) for name in FILES
    )
    state = simulation.context.getState(positions=True)
    with open(topology, "w") as file:
        app.PDBFile.writeFile(simulation.topology, state.getPositions(), file)
    periodic = simulation.system.usesPeriodicBoundaryConditions()
    simulation.reporters += [
        ExplosionGuard(interval),
        app.DCDReporter(trajectory, interval, enforcePeriodicBox=False),
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
        ),
    ]
    if find_physics(simulation.system):
        simulation.reporters.append(So3kReporter(physics, interval, simulation.system, overwrite=overwrite))
    if total_steps:
        simulation.reporters.append(
            app.StateDataReporter(
                sys.stdout,
                max(interval, total_steps // 20),
                temperature=True,
                progress=True,
                remainingTime=True,
                speed=True,
                totalSteps=total_steps,
                separator="  ",
            )
        )
