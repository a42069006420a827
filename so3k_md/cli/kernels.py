"""`so3k-md kernels` builds the compiled kernels or prints their path."""

import argparse

HELP = "build the compiled kernels, which make models faster on CPUs, or print their path"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of the verb."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    build = actions.add_parser("build", help="compile the kernels for the installed torch and this processor")
    build.add_argument("--force", action="store_true", help="compile again even if they are built")
    actions.add_parser("path", help="print the path of the library")


def run(args: argparse.Namespace) -> None:
    """Build the kernels or print their path."""
    from so3k_md.errors import So3kError
    from so3k_md.kernels import build

    library = build.find_kernels()
    if args.action == "path":
        if library is None:
            raise So3kError("the kernels are not built: build them with so3k-md kernels build")
        print(library)
        return
    if args.force or library is None:
        print("building the kernels: takes about a minute", flush=True)
    print(f"kernels: {build.build_kernels(args.force)}")
