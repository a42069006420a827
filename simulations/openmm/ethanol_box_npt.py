"""Ethanol vapour in a periodic box at 300 K and 1 bar, all forces from the model.

The shipped model has learned single molecules: here they start out of each other's reach. With a model of the
liquid choose --spacing 0.46.
"""

import numpy as np
import openmm
from ase import Atoms
from ase.build import molecule

from so3k_md.engines.openmm import create_system
from so3k_md.engines.openmm.run import new_simulation, run, run_parser, run_script


def ethanol_box(per_side: int, spacing_nm: float, seed: int) -> Atoms:
    """Molecules in random orientations on a cubic grid."""
    rng = np.random.default_rng(seed)
    box = Atoms(pbc=True, cell=[per_side * spacing_nm * 10] * 3)
    for place in np.ndindex(per_side, per_side, per_side):
        one = molecule("CH3CH2OH")
        one.rotate(rng.uniform(0, 360), rng.normal(size=3), center="COM")
        one.translate(np.array(place) * spacing_nm * 10 - one.get_center_of_mass())
        box += one
    return box


def main() -> None:
    parser = run_parser(__doc__)
    parser.add_argument("--per-side", type=int, default=2, help="molecules along each side of the box")
    parser.add_argument("--spacing", type=float, default=1.2, help="distance of the molecules, nm")
    args = parser.parse_args()
    made = create_system(ethanol_box(args.per_side, args.spacing, args.seed), args.model)
    print(f"{made.backend.name}: {made.backend.reason}")
    barostat = openmm.MonteCarloBarostat(1.0, 300.0, 25)
    barostat.setRandomNumberSeed(args.seed)
    made.system.addForce(barostat)
    run(new_simulation(made.topology, made.system, made.positions_nm, 300.0, args), args)


if __name__ == "__main__":
    run_script(main)
