"""`so3k-md import` converts a model of so3krates-torch or mlff to an exported file."""

import argparse
from pathlib import Path

HELP = "convert SO3LR, or a model of its family, from so3krates-torch or mlff (JAX)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument(
        "model", help="so3lr, or a file: a model saved by so3krates-torch, or params.pkl of mlff"
    )
    parser.add_argument("-o", "--output", required=True, metavar="MODEL.pt", help="file to write")
    parser.add_argument(
        "--source",
        default="wheel",
        metavar="wheel|FILE",
        help="source of so3lr: the installed so3krates-torch (default), its wheel, so3lr.model or params.pkl",
    )
    parser.add_argument(
        "--rounding",
        choices=["exact", "peer"],
        default="exact",
        help="constants: exact (default), or peer: float32 as in so3krates-torch, to agree with it to 1e-10",
    )
    parser.add_argument(
        "--dtype", choices=["float32", "float64"], help="precision (default: that of the source)"
    )
    parser.add_argument(
        "--elements", metavar="H,C,O", help="elements of the training data, if the file does not name them"
    )
    parser.add_argument("--name", help="name in the metadata (default: the name of the file)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def run(args: argparse.Namespace) -> None:
    """Convert, export and verify a model, and print its licence and citations."""
    from so3k_md.checkpoint import parse_dtype
    from so3k_md.convert.rounding import round_like_peer
    from so3k_md.convert.so3lr import build, convert
    from so3k_md.errors import So3kError
    from so3k_md.export.torchscript import save
    from so3k_md.files import check_output

    output = check_output(args.output, args.overwrite)
    if output.suffix != ".pt":
        raise So3kError(f"{output} does not end in .pt, which the engines expect: give MODEL.pt")
    if args.model != "so3lr" and args.source != "wheel":
        raise So3kError(f"--source is for the model so3lr, but {args.model} is a file: leave --source out")
    imported = convert(args.source if args.model == "so3lr" else args.model, _numbers(args.elements))
    facts = imported.metadata
    if args.model == "so3lr" and not facts["weights_as_published"]:
        raise So3kError(
            f"{facts['source']} does not contain the published weights of SO3LR: "
            f"to import it as another model, so3k-md import {args.source} -o {output}"
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
        f"energy shift, which so3k-md leaves out of energies: {facts['energy_shift_ev_per_atom']:.7f} eV/atom"
    )
    print(f"wrote {output}; print its metadata with: so3k-md info {output}")


def _numbers(symbols: str | None) -> list[int]:
    """The atomic numbers of chemical symbols that commas separate; empty for None."""
    from ase.data import atomic_numbers

    from so3k_md.errors import So3kError

    words = [word.strip() for word in symbols.split(",")] if symbols else []
    unknown = [word for word in words if atomic_numbers.get(word, 0) < 1]
    if unknown:
        raise So3kError(
            f"{unknown[0]!r} in --elements is not a chemical element: give symbols, such as H,C,O"
        )
    return [atomic_numbers[word] for word in words]
