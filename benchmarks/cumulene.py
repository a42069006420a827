"""The torsion of C9H4 by local and non-local models against the reference: one table, one picture.

    python benchmarks/cumulene.py                                  # the three models that come along
    python benchmarks/cumulene.py mine.pt other.ckpt --output compared

Energies along the rigid scan are compared after the value at 90 degrees has been subtracted from each curve.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from so3k_md import cli, load
from so3k_md.analysis.figures import GREY, STYLE, colour, new_figure, to_png
from so3k_md.checkpoint import metadata
from so3k_md.data import read_frames
from so3k_md.errors import So3kError
from so3k_md.evaluate import predict, score
from so3k_md.files import atomic, check_output
from so3k_md.needs import needs_of

Floats = NDArray[np.float64]

DATA = Path(__file__).parents[1] / "simulations" / "data" / "cumulene"
MODELS = ("cumulene-local", "cumulene-sphc", "cumulene-efa")
ZERO = 90.0  # degrees, where all curves are zero
TICKS = (-800, -400, -200, -100, -50, -20, 0, 20, 50, 100, 200, 400, 800)  # meV
GOAL_MEV = 20.0  # largest deviation from 20 to 160 degrees
GOAL_RMS_MEV = 30.0  # over the circle
GOAL_FORCE_MEV = 15.0  # MAE of the forces on the test frames


class Result(NamedTuple):
    """One model: its scan and its errors, eV and Å."""

    label: str
    parameters: int
    kind: str  # non-local attention
    energy: Floats  # along the scan, 0 at 90 degrees
    span: float  # largest minus smallest energy of the scan
    largest: float  # deviation between 20 and 160 degrees
    rms: float  # deviation over the circle
    energy_mae: float  # of the test frames, as they come
    energy_rmse: float
    forces_mae: float


def relative(theta: Floats, energy: Floats) -> Floats:
    """Energies above the one at 90 degrees.

    Raises:
        So3kError: the scan has no such point.
    """
    at = np.flatnonzero(np.isclose(theta, ZERO))
    if len(at) != 1:
        raise So3kError(
            f"the scan has {len(at)} points at {ZERO:g} degrees, one is needed: give another scan"
        )
    return energy - energy[at[0]]


def judge(name: str, args: argparse.Namespace, theta: Floats, reference: Floats) -> Result:
    """Everything about one model."""
    model = load(name, dtype="float64")
    scan, test = read_frames(args.scan), read_frames(args.test)
    energy = relative(theta, np.array([found.energy for found in predict(model, scan)]))
    deviation = energy - reference
    middle = (theta >= 20) & (theta <= 160)
    errors = score(test, predict(model, test))
    energies, forces = errors["energy"], errors["forces"]
    assert energies is not None
    assert forces is not None
    return Result(
        label=str(metadata(model).get("name", Path(name).stem)),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        kind=str(needs_of(model).nonlocal_kind),
        energy=energy,
        span=float(np.ptp(energy)),
        largest=float(np.abs(deviation[middle]).max()),
        rms=float(np.sqrt((deviation**2).mean())),
        energy_mae=energies.mae,
        energy_rmse=energies.rmse,
        forces_mae=forces.mae,
    )


def table(results: list[Result], reference: Floats) -> str:
    """Markdown, in meV and Å."""
    lines = [
        "| model | far attention | parameters | span of the torsion | largest deviation 20–160° "
        "| rms, whole circle | test energy MAE / RMSE | test force MAE |",
        "|---" * 8 + "|",
        f"| GFN2-xTB | | | {1e3 * np.ptp(reference):.0f} | | | | |",
    ]
    for found in results:
        numbers = [found.span, found.largest, found.rms]
        cells = [f"{1e3 * value:.1f}" for value in numbers]
        cells.append(f"{1e3 * found.energy_mae:.1f} / {1e3 * found.energy_rmse:.1f}")
        cells.append(f"{1e3 * found.forces_mae:.1f}")
        lines.append(f"| {found.label} | {found.kind} | {found.parameters:,} | {' | '.join(cells)} |")
    lines.append(f"| goal | | | | {GOAL_MEV:g} | {GOAL_RMS_MEV:g} | | {GOAL_FORCE_MEV:g} |")
    return "\n".join(lines)


def draw(results: list[Result], theta: Floats, reference: Floats) -> bytes:
    """Energy along the torsion, and its deviation from the reference."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(9.6, 3.9)
        profile, error = figure.subplots(1, 2)
        closed = np.append(theta, 360.0)
        profile.plot(
            closed, np.append(reference, reference[0]), "o", markersize=3, color="black", label="GFN2-xTB"
        )
        for k, found in enumerate(results):
            deviation = 1e3 * (found.energy - reference)
            profile.plot(closed, np.append(found.energy, found.energy[0]), color=colour(k), label=found.label)
            error.plot(closed, np.append(deviation, deviation[0]), color=colour(k), label=found.label)
        profile.set(xlabel="torsion / degrees", ylabel="E − E(90°) / eV", title="Rigid scan of C₉H₄")
        error.set(xlabel="torsion / degrees", ylabel="model − reference / meV", title="Deviation")
        error.set_yscale(
            "symlog", linthresh=50
        )  # the errors of good and of bad models are a factor of 100 apart
        error.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
        error.yaxis.set_minor_locator(NullLocator())
        every = 1e3 * np.concatenate([found.energy - reference for found in results])
        error.set_ylim(min(-60.0, 1.2 * every.min()), max(60.0, 1.2 * every.max()))
        error.fill_between((20, 160), -GOAL_MEV, GOAL_MEV, color=GREY, alpha=0.2, linewidth=0)
        for axes in (profile, error):
            axes.set_xlim(0, 360)
            axes.set_xticks(range(0, 361, 45))
        figure.legend(*profile.get_legend_handles_labels(), loc="outside upper left", ncols=len(results) + 1)
        return to_png(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=MODELS, help="checkpoints, exported files or names")
    parser.add_argument("--scan", default=DATA / "c9h4_gfn2_scan_public.npz", help="npz with theta")
    parser.add_argument("--test", default=DATA / "c9h4_gfn2_test_public.npz", help="test frames")
    parser.add_argument("--output", default="cumulene", help="cumulene for cumulene.png and cumulene.json")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier ones")
    args = parser.parse_args()
    picture, numbers = (check_output(f"{args.output}.{kind}", args.overwrite) for kind in ("png", "json"))
    with np.load(args.scan) as scan:
        if not {"theta", "E"} <= set(scan):
            raise So3kError(f"{args.scan} has no theta or E: give an npz of a torsion scan")
        theta, reference = scan["theta"], relative(scan["theta"], scan["E"])
    results = [judge(name, args, theta, reference) for name in args.models]
    print(table(results, reference))
    with atomic(picture) as temporary:
        temporary.write_bytes(draw(results, theta, reference))
    document = {
        "units": {"energy": "eV", "length": "Å", "theta": "degrees"},
        "zero_at": ZERO,
        "theta": theta.tolist(),
        "reference": reference.tolist(),
        "models": [found._asdict() | {"energy": found.energy.tolist()} for found in results],
    }
    with atomic(numbers) as temporary:
        temporary.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n")
    print(f"picture: {picture}\nnumbers: {numbers}")


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
