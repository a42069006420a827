"""`so3k-md curves RUN … -o FILE` draws the validation errors of several trainings in one picture."""

import argparse

from so3k_md.errors import So3kError
from so3k_md.files import check_output

HELP = "draw the learning curves of several trainings in one picture"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a training")
    parser.add_argument(
        "-o", "--output", metavar="FILE", default="curves.png", help="picture: png, pdf or svg (curves.png)"
    )
    parser.add_argument(
        "--label", nargs="+", metavar="NAME", help="name of each run (default: that of its folder)"
    )
    parser.add_argument(
        "--against",
        choices=("epoch", "step", "time"),
        default="epoch",
        help="horizontal axis: epoch (default), step, or time of training",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing picture")


def run(args: argparse.Namespace) -> None:
    """Read all logs, print the smallest errors, and write the picture."""
    names = args.label or [None] * len(args.runs)
    if len(names) != len(args.runs):
        raise So3kError(f"--label has {len(names)} names for {len(args.runs)} runs: give one for each")
    output = check_output(args.output, args.overwrite)
    if output.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise So3kError(f"{output}: is no picture; give a name that ends with .png, .pdf or .svg")
    from so3k_md.train.curves import draw_curves, read_curve, table_of_curves

    curves = [read_curve(folder, name) for folder, name in zip(args.runs, names, strict=True)]
    print(table_of_curves(curves))
    draw_curves(output, curves, args.against)
    print("wrote", output)
