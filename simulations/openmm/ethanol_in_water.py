"""Ethanol in water at 300 K and 1 bar: the model inside the molecule, TIP3P and OPLS-AA everywhere else."""

from pathlib import Path

import openmm
from ase.build import molecule
from openmm import app, unit
from openmmml import MLPotential

from so3k_md.engines.openmm.run import new_simulation, run, run_parser, run_script
from so3k_md.engines.openmm.topology import nm_positions, topology_of


def main() -> None:
    parser = run_parser(__doc__)
    parser.add_argument("--box", type=float, default=2.0, help="side of the box, nm")
    args = parser.parse_args()
    ethanol = molecule("CH3CH2OH")
    force_field = app.ForceField("tip3p.xml", str(Path(__file__).with_name("ethanol.xml")))
    solvated = app.Modeller(topology_of(ethanol), nm_positions(ethanol) * unit.nanometer)
    solvated.addSolvent(force_field, model="tip3p", boxSize=openmm.Vec3(args.box, args.box, args.box))
    classical = force_field.createSystem(
        solvated.topology, nonbondedMethod=app.PME, nonbondedCutoff=min(0.9, 0.45 * args.box)
    )
    potential = MLPotential("so3k", model=args.model)
    system = potential.createMixedSystem(solvated.topology, classical, range(len(ethanol)))
    barostat = openmm.MonteCarloBarostat(1.0, 300.0, 25)
    barostat.setRandomNumberSeed(args.seed)
    system.addForce(barostat)
    run(new_simulation(solvated.topology, system, solvated.positions, 300.0, args), args)


if __name__ == "__main__":
    run_script(main)
