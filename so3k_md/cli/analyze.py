"""`so3k-md analyze TRAJ … --top TOP` analyses trajectories of OpenMM or LAMMPS and writes one report.

`so3k-md analyze FILE --attention MODEL` draws the non-local attention in one frame.
`so3k-md analyze FILE --spectrum` computes the infrared spectrum from the dipole along a run.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from so3k_md.errors import So3kError
from so3k_md.files import check_output

HELP = "analyse trajectories of OpenMM and LAMMPS: write an HTML report and the numbers as JSON"
ROOM_K = 300.0  # K, temperature of a spectrum without --temperature
PERIODIC = {"auto": None, "yes": True, "no": False}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    add = parser.add_argument
    add(
        "trajectories",
        nargs="+",
        metavar="TRAJ",
        help="trajectory: DCD, XTC, HDF5, PDB, XYZ or LAMMPS dump (xu yu zu)",
    )
    add(
        "--top",
        nargs="+",
        metavar="TOP",
        help="topology of DCD, XTC and LAMMPS dumps: PDB, mmCIF, …; one for all trajectories or one for each",
    )
    add(
        "--log",
        nargs="+",
        metavar="LOG",
        help="log of each trajectory: CSV of OpenMM or log of LAMMPS; - for none",
    )
    add(
        "--label",
        nargs="+",
        metavar="NAME",
        help="name of each trajectory in the report (default: its file name)",
    )
    add("-o", "--output", default="analysis", metavar="DIR", help="folder of the output (default: analysis)")
    add("--json", metavar="FILE", help="write the numbers to this file instead")
    time = parser.add_mutually_exclusive_group()
    time.add_argument(
        "--timestep-fs", type=float, metavar="X", help="time step, fs, if the files do not give it"
    )
    time.add_argument(
        "--frame-interval-ps",
        type=float,
        metavar="X",
        help="time between two frames, ps; takes precedence over the files",
    )
    add(
        "--temperature",
        type=float,
        metavar="K",
        help="temperature of the thermostat, K, with which the report compares; of a spectrum (default 300)",
    )
    add(
        "--from",
        dest="from_ps",
        type=float,
        metavar="PS",
        help="start of the averages, ps (default: where the log becomes stationary)",
    )
    add("--stride", type=int, default=1, metavar="N", help="read every N-th frame (default 1)")
    add(
        "--periodic",
        choices=("auto", "yes", "no"),
        default="auto",
        help="yes: use the cell; no: ignore it; auto (default): decide by the files",
    )
    add("--overwrite", action="store_true", help="replace an earlier report")
    _instead_of_the_report(parser)


def _instead_of_the_report(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the attention and of the spectrum."""
    attention = parser.add_argument_group("non-local attention, instead of the report")
    attention.add_argument(
        "--attention",
        metavar="MODEL",
        help="an sphc model: draw its non-local attention against the distance in one frame of TRAJ, or of a "
        "file of structures (extended XYZ, npz, …); writes DIR/attention.png and .json",
    )
    attention.add_argument("--frame", type=int, metavar="N", help="number of the frame, from 0 (default 0)")
    attention.add_argument(
        "--groups",
        choices=("auto", "all"),
        help="auto (default): molecules of a trajectory, array `group` of a structure; all: one group",
    )
    infrared = parser.add_argument_group("infrared spectrum, instead of the report")
    infrared.add_argument(
        "--spectrum",
        action="store_true",
        help="TRAJ is a table of the dipole along a run: physics.csv of OpenMM, fix ave/time of LAMMPS (with "
        "--timestep-fs), or npz with time_ps and dipole; writes DIR/spectrum.png and .json",
    )
    infrared.add_argument(
        "--resolution", type=float, metavar="X", help="resolution of the spectrum, cm⁻¹ (default 10)"
    )


def run(args: argparse.Namespace) -> None:
    """Analyse each trajectory and write one report, or write the attention or the spectrum of one file."""
    if args.attention is not None and args.spectrum:
        raise So3kError("--attention and --spectrum cannot be combined: run them one at a time")
    if args.attention is None:
        refuse(args, ("frame", "groups"), "needs --attention")
    if not args.spectrum:
        refuse(args, ("resolution",), "needs --spectrum")
    if args.attention is not None:
        show_attention(args)
        return
    if args.spectrum:
        show_spectrum(args)
        return
    html, json_file = outputs(args, "report")
    names = args.trajectories
    tops = one_each("--top", args.top, names, shared=True)
    logs = one_each("--log", args.log, names, shared=False)
    given = one_each("--label", args.label, names, shared=False)
    from so3k_md.analysis import analyze, write_report
    from so3k_md.analysis.writing import check_labels

    labels = [label or Path(name).name for label, name in zip(given, names, strict=True)]
    check_labels(labels)
    analyses = []
    for name, top, log, label in zip(names, tops, logs, labels, strict=True):
        analysis = analyze(
            name, top, None if log == "-" else log, label=label, timestep_fs=args.timestep_fs,
            frame_interval_ps=args.frame_interval_ps, temperature_K=args.temperature, stride=args.stride,
            periodic=PERIODIC[args.periodic], from_ps=args.from_ps,
        )  # fmt: skip
        print(f"{label}: {analysis.stability.verdict}")
        for note in analysis.source.notes:
            print(f"{label}: {note}")
        analyses.append(analysis)
    html.parent.mkdir(exist_ok=True)
    write_report(analyses, html, json_file, overwrite=args.overwrite)
    print(f"report: {html}\nnumbers: {json_file}")


def show_attention(args: argparse.Namespace) -> None:
    """Write the picture and the numbers of the non-local attention in one frame."""
    others = ("log", "label", "timestep_fs", "frame_interval_ps", "temperature")
    refuse(args, others, "cannot be combined with --attention")
    if len(args.trajectories) > 1 or len(args.top or ()) > 1:
        raise So3kError("--attention takes one file and one --top: run it once for each")
    picture, numbers = outputs(args, "attention")
    from so3k_md.analysis.attention import beyond, write_attention
    from so3k_md.attention import nonlocal_attention, read_frame

    top = args.top[0] if args.top else None
    frame = read_frame(args.trajectories[0], top, args.frame or 0, PERIODIC[args.periodic])
    found = nonlocal_attention(args.attention, frame, args.groups or "auto")
    picture.parent.mkdir(exist_ok=True)
    write_attention(found, picture, numbers)
    print(
        f"{found.model} in {frame.where}: {found.groups} groups; "
        f"the picture shows one of {len(found.names)} atoms"
    )
    for k, layer in enumerate(found.layers):
        print(
            f"layer {k + 1}: {len(layer.r)} pairs, Σφ {layer.phi.sum() / len(found.names):.2f} per atom, "
            f"{100 * beyond(layer, found.cutoff):.0f} % of Σ|φα| beyond {found.cutoff:g} Å"
        )
    print(f"picture: {picture}\nnumbers: {numbers}")


def show_spectrum(args: argparse.Namespace) -> None:
    """Write the picture and the numbers of the infrared spectrum of one run."""
    refuse(args, ("top", "log", "label", "frame_interval_ps"), "cannot be combined with --spectrum")
    if len(args.trajectories) > 1:
        raise So3kError("--spectrum takes one file: run it once for each")
    picture, numbers = outputs(args, "spectrum")
    from so3k_md.analysis.dipoles import read_dipoles
    from so3k_md.analysis.spectrum import RESOLUTION, infrared_spectrum, named_peaks, write_spectrum

    series = read_dipoles(args.trajectories[0], args.timestep_fs)
    kelvin = ROOM_K if args.temperature is None else args.temperature
    found = infrared_spectrum(series, kelvin, RESOLUTION if args.resolution is None else args.resolution)
    picture.parent.mkdir(exist_ok=True)
    write_spectrum(found, picture, numbers)
    print(
        f"infrared spectrum at {kelvin:g} K with the harmonic quantum correction, resolution "
        f"{found.resolution:.3g} cm⁻¹, peaks at {', '.join(f'{x:.0f}' for x, _ in named_peaks(found))} cm⁻¹"
    )
    print(f"picture: {picture}\nnumbers: {numbers}")


def refuse(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Refuse options that have no effect in this use.

    Args:
        args: the parsed arguments.
        names: of the options.
        why: the reason, for the message.
    """
    for name in names:
        if getattr(args, name) is not None:
            raise So3kError(f"--{name.replace('_', '-')} {why}: leave it out")


def outputs(args: argparse.Namespace, name: str) -> tuple[Path, Path]:
    """The paths of the picture or page and of the JSON file, checked before any work.

    Args:
        args: the parsed arguments.
        name: report, attention or spectrum.

    Raises:
        So3kError: a file cannot be written, exists already, or is also an input.
    """
    folder = Path(args.output)
    if folder.exists() and not folder.is_dir():
        raise So3kError(f"{folder} is a file: give -o the name of a folder")
    if not folder.exists() and not (folder.parent.is_dir() and os.access(folder.parent, os.W_OK)):
        raise So3kError(
            f"the folder {folder} cannot be created in {folder.parent}: create it or choose another"
        )
    first = folder / {"report": "report.html", "attention": "attention.png", "spectrum": "spectrum.png"}[name]
    json_file = Path(args.json) if args.json else folder / f"{name}.json"
    inputs = [*args.trajectories, *(args.top or ()), *(args.log or ())]
    taken = {Path(name).resolve(): "an input" for name in inputs}
    for path in (first, json_file):
        if what := taken.get(path.resolve()):
            raise So3kError(f"{path} is {what} already: give another name with --json or -o")
        taken[path.resolve()] = "another output"
        if path.parent != folder or folder.exists():
            check_output(path, args.overwrite)
    return first, json_file


def one_each(
    option: str, values: Sequence[str] | None, trajectories: Sequence[str], shared: bool
) -> Sequence[str | None]:
    """The value of an option for each trajectory, None without the option.

    Args:
        option: its name, for the message.
        values: as given.
        trajectories: as given.
        shared: whether one value may apply to all trajectories.

    Raises:
        So3kError: another number of values than of trajectories.
    """
    if values is None:
        return [None] * len(trajectories)
    if shared and len(values) == 1:
        return list(values) * len(trajectories)
    if len(values) != len(trajectories):
        raise So3kError(
            f"{option} has {len(values)} values for {len(trajectories)} trajectories: give one for each"
        )
    return values
