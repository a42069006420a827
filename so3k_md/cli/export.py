"""`so3k-md export` writes a model as an exported file and verifies it."""

import argparse
from pathlib import Path

HELP = "write a model as one TorchScript file for all engines"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument(
        "model", help="best.ckpt of a training, an exported file, or the name of a bundled model"
    )
    parser.add_argument("-o", "--output", required=True, metavar="MODEL.pt", help="file to write")
    parser.add_argument(
        "--dtype", choices=["float32", "float64"], help="precision (default: that of the model)"
    )
    parser.add_argument(
        "--kernels",
        choices=["auto", "off"],
        default="auto",
        help="auto (default): the file can use compiled kernels on CPUs if they are built; off: it cannot, "
        "and LAMMPS runs the plain layers in float32 too",
    )
    parser.add_argument("--name", help="name in the metadata (default: the name of the file)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def run(args: argparse.Namespace) -> None:
    """Export and verify a model, and print the deviations that the verification found."""
    from so3k_md.checkpoint import eager, load, parse_dtype, resolve_model
    from so3k_md.convert.former import is_former, read_former
    from so3k_md.errors import So3kError
    from so3k_md.export.torchscript import save
    from so3k_md.files import check_output
    from so3k_md.model import set_dtype

    output = check_output(args.output, args.overwrite)
    if output.suffix != ".pt":
        raise So3kError(f"{output} does not end in .pt, which the engines expect: give MODEL.pt")
    path = resolve_model(args.model)
    model = read_former(path) if is_former(path) else eager(load(path))
    if args.dtype:
        set_dtype(model, parse_dtype(args.dtype))
    checks = save(model, output, args.name or Path(output).stem, args.kernels)
    for check, deviation in checks.items():
        print(f"verified against eager evaluation: {check:<20} largest relative deviation {deviation:.1e}")
    print(f"wrote {output}; print its metadata with: so3k-md info {output}")
