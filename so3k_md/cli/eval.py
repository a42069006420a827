"""`so3k-md eval` compares a model with a data file: a table of errors, JSON, predictions, parity plots."""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from so3k_md.errors import So3kError
from so3k_md.files import check_output

# Labels of models with charges.
OF_CHARGES = {
    "dipole": "dipole of an open structure",
    "charges": "charges of atoms, e",
    "hirshfeld_ratios": "Hirshfeld volumes over those of free atoms",
}
HELP = "compute the errors of a model on labelled structures, or predictions for unlabelled ones"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument(
        "model", metavar="MODEL", help="checkpoint, exported .pt, or the name of a bundled model"
    )
    parser.add_argument("data", metavar="DATA", help="structures: extended XYZ or npz")
    parser.add_argument(
        "--by",
        metavar="KEY",
        help="key of the frames: table of errors by its values (default config_type, if a frame has it)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the errors of the file and of each frame")
    parser.add_argument(
        "--predictions",
        metavar="FILE",
        help="write predictions and all keys of DATA as extended XYZ, in full precision",
    )
    parser.add_argument("--plot", metavar="DIR", help="write parity plots")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), help="precision (default: that of the model file)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=16, metavar="N", help="structures per batch (default 16)"
    )
    _labels(parser)
    parser.add_argument(
        "--groups",
        choices=("auto", "all"),
        default="auto",
        help="groups of non-local models: auto (default; array `group`, or a whole open structure) or all",
    )
    parser.add_argument(
        "--coulomb",
        default="kspace",
        help="form of the Coulomb energy: kspace (default; the exact sum), shifted or shifted+self",
    )
    parser.add_argument(
        "--cutoff-lr",
        type=float,
        default=12.0,
        metavar="A",
        help="cutoff of dispersion and of the shifted Coulomb forms, Å (default 12)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing output")


def _labels(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments for keys, units and conventions of the labels."""
    parser.add_argument("--energy-key", metavar="KEY", help="key of the energy (default energy; E in npz)")
    parser.add_argument("--forces-key", metavar="KEY", help="key of the forces (default forces; F in npz)")
    parser.add_argument(
        "--stress-key",
        metavar="KEY",
        help="key of the stress, or of the virial if its unit or name says so (default stress)",
    )
    for quantity, text in OF_CHARGES.items():
        name = f"--{quantity.replace('_', '-')}-key"
        parser.add_argument(name, metavar="KEY", help=f"key of the {text} (default: not read)")
    parser.add_argument(
        "--energy-unit",
        metavar="UNIT",
        default="eV",
        help="unit of the energies: eV (default), meV, kcal/mol, kJ/mol, Hartree",
    )
    parser.add_argument(
        "--length-unit",
        metavar="UNIT",
        default="Angstrom",
        help="unit of the lengths: Angstrom (default), nm, Bohr",
    )
    parser.add_argument(
        "--forces-unit",
        metavar="UNIT",
        help="unit of the forces, such as Hartree/Bohr (default: energy unit / length unit)",
    )
    parser.add_argument(
        "--stress-unit",
        metavar="UNIT",
        help="unit of the stress: GPa, kbar, eV/Angstrom^3, …; an energy for virials",
    )
    parser.add_argument(
        "--stress-sign",
        default="ase",
        help="sign: ase (default; stress positive in tension, virial −V stress) or opposite",
    )
    parser.add_argument(
        "--dipole-unit",
        metavar="UNIT",
        default="e*Angstrom",
        help="unit of the dipoles: e*Angstrom (default), Debye, e*Bohr, e*nm",
    )
    parser.add_argument(
        "--spin-convention",
        default="auto",
        help="meaning of values named spin: S, unpaired (2S), multiplicity (2S+1), auto (default)",
    )


def run(args: argparse.Namespace) -> None:
    """Check all arguments, evaluate the model, print the errors, and write the files at the end."""
    _check_arguments(args)
    from tqdm import tqdm

    from so3k_md.breakdown import require_key
    from so3k_md.checkpoint import load
    from so3k_md.data.read import READING, read_frames
    from so3k_md.evaluate import (
        predict,
        score,
        table,
        to_document,
        write_document,
        write_parity_plots,
        write_predictions,
    )
    from so3k_md.needs import needs_of

    frames = read_frames(args.data, keep=True, **{name: getattr(args, name) for name in READING})
    if args.by is not None:
        require_key(args.by, frames)
    model: Any = load(args.model, args.device, args.dtype)
    hidden = not sys.stderr.isatty()
    predictions = predict(
        model,
        frames,
        args.batch_size,
        lambda items: tqdm(items, desc="evaluating", unit="frame", disable=hidden),
        args.groups,
        args.coulomb,
        args.cutoff_lr,
    )
    scores = score(frames, predictions)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    n_atoms = sum(len(frame.numbers) for frame in frames)
    print(f"{args.model} on {args.data}: {len(frames)} frames, {n_atoms} atoms, {dtype}")
    if needs_of(model).has_long_range:
        print(f"coulomb {args.coulomb}, dispersion to {args.cutoff_lr:g} Å, energies without energy shift")
    print(table(scores))
    parts = _breakdowns(args.by, frames, predictions)
    if not any(scores.values()):
        print("no frame has a reference: if the keys have other names, give --energy-key, --forces-key, …")
    if args.json:
        head = {"model": str(args.model), "data": str(args.data), "dtype": dtype, "device": args.device}
        write_document(args.json, head | to_document(frames, predictions, scores) | parts)
    if args.predictions:
        write_predictions(args.predictions, frames, predictions)
    written = [path for path in (args.json, args.predictions) if path]
    if args.plot:
        written += write_parity_plots(args.plot, frames, predictions)
    if written:
        print("wrote", ", ".join(map(str, written)))


def _breakdowns(key: str | None, frames: list[Any], predictions: list[Any]) -> dict[str, Any]:
    """Print the errors of parts of the data, where there are several, and return all of them."""
    from so3k_md import breakdown

    elements = breakdown.by_element(frames, predictions)
    compositions = breakdown.by_composition(frames, predictions)
    found = [elements, compositions]
    if key is not None or breakdown.has_key(breakdown.KEY, frames):
        found.append(breakdown.by_key(key or breakdown.KEY, frames, predictions))
    for parts in found:
        text = breakdown.table_of(parts)
        if text and (len(parts.frames) > 1 or parts.what == key):
            print(f"\n{text}")
    return {
        "by_element": breakdown.to_document(elements),
        "by_composition": breakdown.to_document(compositions),
        "by_key": {parts.what: breakdown.to_document(parts) for parts in found[2:]},
    }


def _check_arguments(args: argparse.Namespace) -> None:
    """Refuse impossible options and outputs before any work."""
    if args.batch_size < 1:
        raise So3kError(f"--batch-size {args.batch_size} is impossible: give at least 1")
    from so3k_md.evaluate import PICTURES

    outputs = [check_output(path, args.overwrite) for path in (args.json, args.predictions) if path]
    if args.plot:
        if find_spec("matplotlib") is None:
            raise So3kError("--plot needs matplotlib: pip install 'so3k-md[analysis]'")
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
            raise So3kError(f"{path} is named twice, as input or as output: give every output its own name")
