"""SO3LR in OpenMM: water, alanine dipeptide by itself or in water, an acetate ion in water, crambin in water.

    so3k-md import so3lr -o so3lr.pt --dtype float32
    python simulations/openmm/so3lr.py alanine_water --model so3lr.pt --interval 4 --output run

Steps of 0.5 fs at 300 K after a minimisation; at 1 bar where the ensemble is npt.
"""

from typing import Any

import openmm
from openmm import app
from so3lr_systems import SYSTEMS, Built

from so3k_md.engines.openmm import create_system
from so3k_md.engines.openmm.run import (
    new_simulation,
    readable_errors,
    run,
    run_parser,
    run_script,
)
from so3k_md.errors import So3kError

WARM_UP = 200  # steps with a thermostat before energy is left to itself


def alone(warm: app.Simulation, steps: int) -> app.Simulation:
    """A simulation without thermostat that goes on where a few steps of one with it end."""
    with readable_errors():
        warm.step(steps)
        state = warm.context.getState(positions=True, velocities=True)
        integrator = openmm.VerletIntegrator(warm.integrator.getStepSize())
        cold = app.Simulation(warm.topology, warm.system, integrator, warm.context.getPlatform())
        cold.context.setState(state)
        cold.context.setTime(0.0)
        cold.currentStep = 0
    return cold


def main() -> None:
    parser = run_parser(__doc__)
    parser.add_argument("name", choices=SYSTEMS, metavar="SYSTEM", help=f"one of {', '.join(SYSTEMS)}")
    parser.add_argument("--ensemble", choices=("nve", "nvt", "npt"), help="default: that of the system")
    parser.add_argument("--kelvin", type=float, default=300.0, help="temperature, K")
    parser.add_argument("--coulomb", default="kspace", help="kspace, shifted or shifted+self")
    parser.add_argument("--warm-up", type=int, default=WARM_UP, help="steps with a thermostat before nve")
    parser.set_defaults(model="so3lr.pt", steps=2000)
    args = parser.parse_args()
    built: Built = SYSTEMS[args.name]()
    charged: dict[str, Any] = {}
    if built.charges is not None:
        charged = {"fragments": "molecules", "fragment_charges": built.charges}
    ensemble = args.ensemble or built.ensemble
    if ensemble == "npt" and built.topology.getPeriodicBoxVectors() is None:
        raise So3kError(f"--ensemble npt needs a periodic box, which {args.name} has not: choose nvt or nve")
    made = create_system(
        built.topology, args.model, positions_nm=built.positions_nm, coulomb=args.coulomb, **charged
    )
    if ensemble == "npt":
        barostat = openmm.MonteCarloBarostat(1.0, args.kelvin, 25)
        barostat.setRandomNumberSeed(args.seed)
        made.system.addForce(barostat)
    simulation = new_simulation(made.topology, made.system, built.positions_nm, args.kelvin, args)
    run(alone(simulation, args.warm_up) if ensemble == "nve" else simulation, args)


if __name__ == "__main__":
    run_script(main)
