"""Liquid ethanol from a trajectory: the C–C–O–H dihedral, the hydrogen bond in g(r), and the report."""

import argparse
from pathlib import Path

from so3k_md.analysis import analyze, write_report

LIQUID = Path(__file__).parents[1] / "data" / "ethanol_liquid"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traj", default=LIQUID / "ethanol.xtc", help="trajectory of OpenMM or LAMMPS")
    parser.add_argument("--top", default=LIQUID / "ethanol.pdb", help="its topology")
    parser.add_argument("--log", default=LIQUID / "ethanol.csv", help="its log")
    parser.add_argument("--output", type=Path, default=Path("ethanol_analysis"), help="folder for the report")
    args = parser.parse_args()

    run = analyze(args.traj, args.top, args.log, label="ethanol")
    print(run.stability.verdict)
    for dihedral in run.dihedrals or ():
        if dihedral.kind == "C–C–O–H":
            width = dihedral.centres[1] - dihedral.centres[0]
            trans = 100 * width * dihedral.density[abs(dihedral.centres) > 120].sum()
            print(f"C–C–O–H: {trans:.0f} % trans, {100 - trans:.0f} % gauche or cis")
    for rdf in run.rdf or ():
        if rdf.kind == "O–O":
            print(f"O–O: g = {rdf.peak_g:.1f} at {rdf.peak_r:.2f} Å, where hydrogen bonds are")
    if run.energy:
        drift = run.energy.drift
        print(f"drift: ({drift.slope:.1e} ± {drift.error:.1e}) eV/atom/ps")

    args.output.mkdir(exist_ok=True)
    html = args.output / "report.html"
    write_report(run, html, args.output / "report.json", title="Liquid ethanol", overwrite=True)
    print(f"report: {html}")


if __name__ == "__main__":
    main()
