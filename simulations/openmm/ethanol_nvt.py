"""One ethanol molecule in vacuum at 300 K, all forces from the model: 10,000 steps of 0.5 fs are 5 ps."""

from ase.build import molecule

from so3k_md.engines.openmm import create_system
from so3k_md.engines.openmm.run import new_simulation, run, run_parser, run_script


def main() -> None:
    args = run_parser(__doc__).parse_args()
    made = create_system(molecule("CH3CH2OH"), args.model)
    print(f"{made.backend.name}: {made.backend.reason}")
    run(new_simulation(made.topology, made.system, made.positions_nm, 300.0, args), args)


if __name__ == "__main__":
    run_script(main)
