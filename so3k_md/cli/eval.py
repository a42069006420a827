"""`so3k-md eval`: errors of a model on a data file, as a table, JSON, predictions and parity plots."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from so3k_md.errors import So3kError
from so3k_md.files import atomic, check_output

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from so3k_md.data import Frame
    from so3k_md.evaluate import Prediction, Score

    Floats = NDArray[np.float64]

HELP = "errors of a model on labelled structures, or its predictions for unlabelled ones"
PICTURES = ("energy", "forces", "stress")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "model", metavar="MODEL", help="checkpoint, exported .pt, or the name of a shipped model"
    )
    parser.add_argument("data", metavar="DATA", help="extended XYZ or npz")
    parser.add_argument("--json", metavar="FILE", help="write errors and per-frame numbers")
    parser.add_argument(
        "--predictions", metavar="FILE", help="write predictions as extended XYZ, in full precision"
    )
    parser.add_argument("--plot", metavar="DIR", help="write parity plots")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), help="precision (default: as in the model's file)"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="structures at a time (default 16)")
    parser.add_argument("--energy-key", help="key of the energy (default energy; E in npz)")
    parser.add_argument("--forces-key", help="key of the forces (default forces; F in npz)")
    parser.add_argument(
        "--stress-key", help="key of the stress, or of a virial if its name says so (default stress)"
    )
    parser.add_argument(
        "--energy-unit", default="eV", help="of the file: eV (default), meV, kcal/mol, kJ/mol, Hartree"
    )
    parser.add_argument("--length-unit", default="Angstrom", help="of the file: Angstrom (default), nm, Bohr")
    parser.add_argument("--overwrite", action="store_true", help="replace existing output")


def run(args: argparse.Namespace) -> None:
    """Evaluate: everything is checked before the model runs, and files are written at the end."""
    _check_arguments(args)
    from tqdm import tqdm

    from so3k_md.checkpoint import load
    from so3k_md.data import read_frames, require_elements
    from so3k_md.evaluate import predict, score, table, to_document, write_document, write_predictions

    frames = read_frames(
        args.data, args.energy_key, args.forces_key, args.stress_key, args.energy_unit, args.length_unit
    )
    model = load(args.model, args.device, args.dtype)
    require_elements(frames, model.elements)  # type: ignore[arg-type]
    hidden = not sys.stderr.isatty()
    predictions = predict(
        model,
        frames,
        args.batch_size,
        lambda items: tqdm(items, desc="evaluating", unit="frame", disable=hidden),
    )
    scores = score(frames, predictions)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    n_atoms = sum(len(frame.numbers) for frame in frames)
    print(f"{args.model} on {args.data}: {len(frames)} frames, {n_atoms} atoms, {dtype}")
    print(table(scores))
    if not any(scores.values()):
        print("no frame has a reference: where the file has other keys, name them with --energy-key etc.")
    if args.json:
        head = {"model": str(args.model), "data": str(args.data), "dtype": dtype, "device": args.device}
        write_document(args.json, head | to_document(frames, predictions, scores))
    if args.predictions:
        write_predictions(args.predictions, frames, predictions)
    written = [path for path in (args.json, args.predictions) if path]
    if args.plot:
        written += _plot(Path(args.plot), frames, predictions, scores)
    if written:
        print("wrote", ", ".join(map(str, written)))


def _check_arguments(args: argparse.Namespace) -> None:
    """Refuse what cannot end well, before any work."""
    if args.batch_size < 1:
        raise So3kError(f"--batch-size {args.batch_size}: at least 1 is needed")
    outputs = [check_output(path, args.overwrite) for path in (args.json, args.predictions) if path]
    if args.plot:
        import matplotlib  # noqa: F401 - a missing package is known before the work

        folder = Path(args.plot)
        if folder.exists() and not folder.is_dir():
            raise So3kError(f"--plot {folder} is a file, a folder is needed: choose another name")
        if folder.is_dir():
            outputs += [check_output(folder / f"parity_{name}.png", args.overwrite) for name in PICTURES]
        else:
            check_output(folder, args.overwrite)
    places = [Path(args.model), Path(args.data), *outputs]
    for k, path in enumerate(places[2:], start=2):
        if path.resolve() in [other.resolve() for other in places[:k]]:
            raise So3kError(
                f"{path} is named twice, as input or other output: give every output its own name"
            )


def _plot(
    folder: Path,
    frames: "Sequence[Frame]",
    predictions: "Sequence[Prediction]",
    scores: "dict[str, Score | None]",
) -> list[Path]:
    """Parity plots of the quantities that have a reference."""
    import numpy as np

    from so3k_md.data import fit_statistics

    if not any(scores.values()):
        return []
    folder.mkdir(exist_ok=True)
    pairs = list(zip(frames, predictions, strict=True))
    points: dict[str, list[tuple[Floats, Floats]]] = {name: [] for name in PICTURES}
    shift = fit_statistics(frames).shift if scores["energy"] else {}
    for frame, found in pairs:
        if frame.energy is not None:
            free = sum(shift[int(z)] for z in frame.numbers)
            points["energy"].append((np.array([frame.energy - free]), np.array([found.energy - free])))
        if frame.forces is not None:
            points["forces"].append((frame.forces.ravel(), found.forces.ravel()))
        if frame.stress is not None and found.stress is not None:
            points["stress"].append((frame.stress.ravel(), found.stress.ravel()))
    labels = {
        "energy": ("energy − fitted atomic energies", "eV"),
        "forces": ("force component", "eV/Å"),
        "stress": ("stress component", "eV/Å³"),
    }
    written = []
    for name in PICTURES:
        result = scores[name]
        if result is None:
            continue
        x, y = (np.concatenate(values) for values in zip(*points[name], strict=True))
        title = f"MAE {1e3 * result.mae:.3g}, RMSE {1e3 * result.rmse:.3g} m{labels[name][1]}"
        written.append(_parity(folder / f"parity_{name}.png", x, y, *labels[name], title))
    return written


def _parity(path: Path, x: "Floats", y: "Floats", what: str, unit: str, title: str) -> Path:
    """One picture: predicted against reference."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(x, y, ".", markersize=3, alpha=0.5, color="tab:blue", rasterized=True)
    axes.axline((0, 0), slope=1, color="black", linewidth=0.8)
    axes.set(xlabel=f"reference {what} / {unit}", ylabel=f"predicted {what} / {unit}", title=title)
    limits = axes.axis()
    axes.set(xlim=(min(limits), max(limits)), ylim=(min(limits), max(limits)), aspect="equal")
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150)
    return path
