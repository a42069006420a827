"""How the two ends of each cumulene in a trajectory stand to each other: one picture of several runs.

    python simulations/analysis/cumulene.py sphc=sphc/trajectory.dcd local=local/trajectory.dcd \\
        --top sphc/topology.pdb --output torsion

θ is the angle between the two CH2 planes, 0 to 180 degrees: half a turn of either changes nothing. Where the
ends know of each other ⟨cos 2θ⟩ is near -1; where they do not ⟨cos 2θ(0) cos 2θ(t)⟩ falls to 0.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from numpy.typing import NDArray

from so3k_md import cli
from so3k_md.analysis.bonds import make_whole
from so3k_md.analysis.figures import GREY, STYLE, colour, new_figure, to_png
from so3k_md.analysis.trajectory import load_trajectory
from so3k_md.errors import So3kError
from so3k_md.files import atomic, check_output
from so3k_md.structure.bonds import trees
from so3k_md.units import BOLTZMANN_EV_K

Floats = NDArray[np.float64]

SCAN = Path(__file__).parents[1] / "data" / "cumulene" / "c9h4_gfn2_scan_public.npz"
ELEMENTS = ("C",) * 9 + ("H",) * 4
ENDS = (0, 8)  # the carbons at the ends, and the hydrogens of each
HYDROGENS = ((9, 10), (11, 12))
BINS = np.linspace(0, 180, 37)


class Run(NamedTuple):
    """The torsions of one trajectory."""

    label: str
    time: Floats  # (frames,), ps
    theta: Floats  # (frames, molecules), degrees, 0 to 180
    after: NDArray[np.bool_]  # (frames,), those that count, the start being forgotten


def torsions(positions: Floats) -> Floats:
    """Angle between the H–H directions of the two ends, seen along the line from end to end.

    Args:
        positions: whole molecules, (frames, molecules, 13, 3), Å.

    Returns:
        (frames, molecules), degrees, 0 to 180.
    """
    axis = positions[:, :, ENDS[1]] - positions[:, :, ENDS[0]]
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    first, second = (positions[:, :, b] - positions[:, :, a] for a, b in HYDROGENS)
    sine = (np.cross(first, second) * axis).sum(-1)
    cosine = (first * second).sum(-1) - (first * axis).sum(-1) * (second * axis).sum(-1)
    return np.degrees(np.arctan2(sine, cosine)) % 180


def correlation(theta: Floats) -> Floats:
    """C(t) = ⟨cos 2θ(s) cos 2θ(s + t)⟩ over molecules and starts s, for t up to half of the frames."""
    values = np.cos(2 * np.radians(theta))
    n = len(values)
    return np.array([(values[: n - k] * values[k:]).mean() for k in range(max(1, n // 2))])


def read(word: str, args: argparse.Namespace) -> Run:
    """LABEL=TRAJECTORY.

    Raises:
        So3kError: the word has another form, or the trajectory holds something else than C9H4.
    """
    label, equals, path = word.partition("=")
    if not (label and equals and path):
        raise So3kError(f"{word!r} is not LABEL=TRAJECTORY: write for example sphc=run/trajectory.dcd")
    data = load_trajectory(path, args.top, timestep_fs=args.timestep_fs)
    size = len(ELEMENTS)
    if data.symbols[:size] * (len(data.symbols) // size) != data.symbols or data.symbols[:size] != ELEMENTS:
        raise So3kError(f"{path} does not hold C9H4 molecules, each C0 to C8 and four H: give runs of those")
    parent, _ = trees(len(data.symbols), data.bonds)
    whole = make_whole(data.positions, data.cells, data.pbc, parent).reshape(len(data.positions), -1, size, 3)
    after = data.time - data.time[0] >= args.skip
    if not after.any():
        raise So3kError(f"{path} ends after {np.ptp(data.time):g} ps, --skip is {args.skip:g}: skip less")
    return Run(label, data.time, torsions(whole), after)


def canonical(kelvin: float) -> tuple[Floats, Floats]:
    """Angles and the density exp(−E/kT) of the reference's rigid scan, 1/degree."""
    scan = np.load(SCAN)
    half = scan["theta"] < 180
    weight = np.exp(-(scan["E"][half] - scan["E"].min()) / (BOLTZMANN_EV_K * kelvin))
    return scan["theta"][half], weight / (weight.sum() * 180 / half.sum())


def draw(runs: list[Run], kelvin: float) -> bytes:
    """Torsions over time, run by run; their distribution; the correlation."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(9.6, 6.4)
        upper, lower = figure.subfigures(2, 1)
        panels = upper.subplots(1, len(runs), squeeze=False)[0]
        for k, (axes, run) in enumerate(zip(panels, runs, strict=True)):
            start = np.broadcast_to(run.time[0], run.theta[0].shape)
            axes.plot(start, run.theta[0], "o", markersize=4, color=colour(k))
            axes.plot(run.time, run.theta, ".", markersize=1.5, color=colour(k), alpha=0.6)
            axes.set(title=run.label, xlabel="time / ps", ylabel="θ / degrees", ylim=(0, 180))
            axes.set_yticks(range(0, 181, 45))
        spread, memory = lower.subplots(1, 2)
        for k, run in enumerate(runs):
            density, _ = np.histogram(run.theta[run.after], BINS, density=True)
            spread.stairs(density, BINS, color=colour(k), fill=True, alpha=0.15)
            spread.stairs(density, BINS, color=colour(k), label=run.label, linewidth=1.6)
            series = correlation(run.theta[run.after])
            memory.plot(run.time[: len(series)] - run.time[0], series, color=colour(k), label=run.label)
        spread.plot(*canonical(kelvin), ":", color=GREY, label=f"GFN2 scan, {kelvin:g} K")
        spread.axhline(1 / 180, color=GREY, linewidth=0.8)
        spread.set(title="Distribution", xlabel="θ / degrees", ylabel="density / degree⁻¹", xlim=(0, 180))
        spread.set_xticks(range(0, 181, 45))
        memory.axhline(0, color=GREY, linewidth=0.8)
        memory.set(title="⟨cos 2θ(0) cos 2θ(t)⟩", xlabel="t / ps", ylabel="correlation / 1", ylim=(-0.3, 1))
        spread.legend()
        return to_png(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="LABEL=TRAJ", help="DCD of OpenMM or dump of LAMMPS")
    parser.add_argument("--top", required=True, help="topology of all of them")
    parser.add_argument("--timestep-fs", type=float, default=0.5, help="time of one step")
    parser.add_argument("--skip", type=float, default=0.6, help="ps at the start that do not count")
    parser.add_argument("--kelvin", type=float, default=300.0, help="temperature of the runs")
    parser.add_argument("--output", type=Path, required=True, help="folder for torsion.png and torsion.json")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier ones")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    picture, numbers = (
        check_output(args.output / name, args.overwrite) for name in ("torsion.png", "torsion.json")
    )
    runs = [read(word, args) for word in args.runs]
    document = {}
    print(f"{'run':<12}{'⟨cos 2θ⟩':>10}{'⟨cos 2θ⟩ of each molecule':>30}")
    for run in runs:
        each = np.cos(2 * np.radians(run.theta[run.after])).mean(axis=0)
        print(f"{run.label:<12}{each.mean():>10.3f}   {' '.join(f'{value:.2f}' for value in each)}")
        document[run.label] = {
            "mean_cos_2theta": each.mean(),
            "of_each_molecule": each.tolist(),
            "correlation": correlation(run.theta[run.after]).tolist(),
            "time_ps": run.time.tolist(),
            "theta_degrees": run.theta.round(2).tolist(),
        }
    with atomic(picture) as temporary:
        temporary.write_bytes(draw(runs, args.kelvin))
    with atomic(numbers) as temporary:
        temporary.write_text(json.dumps(document) + "\n")
    print(f"picture: {picture}\nnumbers: {numbers}")


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
