"""`so3k-md import`."""

import argparse
from pathlib import Path

HELP = "bring in SO3LR, or a model of its family, from so3krates-torch or mlff (JAX)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("model", help="so3lr, or a file: a model that so3krates-torch saved, or params.pkl")
    parser.add_argument("-o", "--output", required=True, metavar="MODEL.pt", help="file to write")
    parser.add_argument(
        "--source",
        default="wheel",
        metavar="wheel|FILE",
        help="where so3lr is: the installed so3krates-torch (default), its wheel, so3lr.model or params.pkl",
    )
    parser.add_argument(
        "--rounding",
        choices=["exact", "peer"],
        default="exact",
        help="constants exact (default), or in float32 as in so3krates-torch, to compare with it to 1e-10",
    )
    parser.add_argument("--dtype", choices=["float32", "float64"], help="precision; default: the file's")
    parser.add_argument(
        "--elements", metavar="H,C,O", help="what it was trained on, if the file does not tell"
    )
    parser.add_argument("--name", help="what the model calls itself; default: the name of the file")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def run(args: argparse.Namespace) -> None:
    """Convert, export, verify, and say whose work it is."""
    from so3k_md.checkpoint import parse_dtype
    from so3k_md.convert.rounding import round_like_peer
    from so3k_md.convert.so3lr import build, convert
    from so3k_md.errors import So3kError
    from so3k_md.export.torchscript import save
    from so3k_md.files import check_output

    output = check_output(args.output, args.overwrite)
    if output.suffix != ".pt":
        raise So3kError(f"{output} does not end in .pt: the engines expect that")
    if args.model != "so3lr" and args.source != "wheel":
        raise So3kError(
            f"--source says where so3lr is, but {args.model} is a file itself: leave one of them out"
        )
    imported = convert(args.source if args.model == "so3lr" else args.model, _numbers(args.elements))
    facts = imported.metadata
    if args.model == "so3lr" and not facts["weights_as_published"]:
        raise So3kError(
            f"{facts['source']} does not hold the published weights of SO3LR: "
            f"if that is meant, so3k-md import {args.source} -o {output}"
        )
    model = build(imported, parse_dtype(args.dtype) if args.dtype else None)
    if args.rounding == "peer":
        round_like_peer(model)
    checks = save(model, output, args.name or Path(output).stem)
    for check, deviation in checks.items():
        print(f"verified against eager evaluation: {check:<20} largest relative deviation {deviation:.1e}")
    print(f"imported: {facts['imported']} from {facts['source']}, constants {args.rounding}")
    print(f"licence: {facts['licence']}")
    print("please cite:", *facts["citations"], sep="\n    ")
    print(
        f"left out of all energies: {facts['energy_shift_ev_per_atom']:.7f} eV/atom of the original program"
    )
    print(f"wrote {output}; see what it is with: so3k-md info {output}")


def _numbers(symbols: str | None) -> list[int]:
    """Atomic numbers of symbols with commas between them."""
    from ase.data import atomic_numbers

    from so3k_md.errors import So3kError

    words = [word.strip() for word in symbols.split(",")] if symbols else []
    unknown = [word for word in words if atomic_numbers.get(word, 0) < 1]
    if unknown:
        raise So3kError(f"{unknown[0]!r} in --elements is no chemical element: write symbols, such as H,C,O")
    return [atomic_numbers[word] for word in words]
