"""Eight C9H4 cumulenes in a periodic box at 300 K, their end groups turned to eight different angles.

Only a non-local model knows that the two ends of a molecule, 10 Å apart, want to stand at right angles:
compare --model cumulene-sphc and cumulene-efa with cumulene-local. 4,000 steps of 0.5 fs are 2 ps.
"""

from pathlib import Path

import numpy as np
import openmm
from ase import Atoms
from openmm import app

from so3k_md.engines.openmm import create_system
from so3k_md.engines.openmm.run import add_reporters, platform_of, readable_errors, run_parser, run_script
from so3k_md.errors import So3kError
from so3k_md.files import check_output
from so3k_md.units import EV_IN_KJ_MOL, NM_IN_ANGSTROM

SCAN = Path(__file__).parents[1] / "data" / "cumulene" / "c9h4_gfn2_scan_public.npz"
ANGLES = (5, 25, 50, 70, 95, 115, 140, 160)  # degrees, the torsions at the start
SPACING = 20.0  # Å: a molecule turns about its middle without coming within reach of its neighbors
MIDDLE = 4  # the carbon in the middle of the chain
TETHER = 1.0  # eV/Å², holds it where it started: the models have learned single molecules, not collisions
FRICTION_PS = 5.0  # 1/ps
STATE = "state.xml"


def cumulene_box(seed: int = 1) -> Atoms:
    """A molecule for each of the angles, in random orientations about the corners of a cubic grid.

    Those in corners of the box stick out of it: molecules need not lie in the home cell, but in one piece.
    """
    scan = np.load(SCAN)
    shape = dict(zip(np.round(scan["theta"]).astype(int).tolist(), scan["R"], strict=True))
    rng = np.random.default_rng(seed)
    box = Atoms(pbc=True, cell=[2 * SPACING] * 3)
    for angle, place in zip(ANGLES, np.ndindex(2, 2, 2), strict=True):
        one = Atoms(scan["z"], shape[angle] - shape[angle][MIDDLE])
        one.rotate(rng.uniform(0, 360), rng.normal(size=3))
        one.translate(np.array(place) * SPACING)
        box += one
    box.arrays["group"] = np.repeat(np.arange(len(ANGLES)), len(scan["z"]))
    return box


def tether(box: Atoms) -> openmm.CustomExternalForce:
    """½ k |r − r₀|² on the middle of each molecule."""
    force = openmm.CustomExternalForce("0.5*k*periodicdistance(x, y, z, x0, y0, z0)^2")
    force.addGlobalParameter("k", TETHER * EV_IN_KJ_MOL * NM_IN_ANGSTROM**2)
    for name in ("x0", "y0", "z0"):
        force.addPerParticleParameter(name)
    for atom in range(MIDDLE, len(box), len(box) // len(ANGLES)):
        force.addParticle(atom, box.positions[atom] / NM_IN_ANGSTROM)
    return force


def main() -> None:
    parser = run_parser(__doc__)
    parser.set_defaults(model="cumulene-sphc", steps=4000, interval=8)
    parser.add_argument("--kelvin", type=float, default=300.0, help="temperature, K")
    parser.add_argument("--restart", type=Path, metavar=STATE, help="go on from this file of an earlier run")
    args = parser.parse_args()
    if args.restart and not args.restart.is_file():
        raise So3kError(f"there is no file {args.restart} to restart from: give the {STATE} of a run")
    if (args.output / STATE).exists():
        check_output(args.output / STATE, args.overwrite)
    box = cumulene_box()
    made = create_system(box, args.model)
    print(f"{made.backend.name}: {made.backend.reason}")
    made.system.addForce(tether(box))
    integrator = openmm.LangevinMiddleIntegrator(args.kelvin, FRICTION_PS, 0.0005)
    integrator.setRandomNumberSeed(args.seed)
    simulation = app.Simulation(
        made.topology, made.system, integrator, platform_of(args.platform, made.system)
    )
    with readable_errors():
        simulation.context.setPositions(made.positions_nm)
        if args.restart:
            simulation.loadState(str(args.restart))
            # the noise of the first run once more would be correlated with the path it has taken
            integrator.setRandomNumberSeed((args.seed + simulation.currentStep) % 2**31)
            simulation.context.reinitialize(preserveState=True)
        else:  # not minimised: that would turn the ends
            simulation.context.setVelocitiesToTemperature(args.kelvin, args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    simulation.reporters.append(
        app.CheckpointReporter(str(args.output / STATE), 50 * args.interval, writeState=True)
    )
    last = simulation.currentStep + args.steps
    add_reporters(simulation, args.output, args.interval, last, args.overwrite)
    with readable_errors():
        simulation.step(args.steps)
    simulation.saveState(str(args.output / STATE))
    print(f"to go on: --restart {args.output / STATE} and another --output")


if __name__ == "__main__":
    run_script(main)
