"""`so3k-md lammps` builds the LAMMPS plugin or prints its folder."""

import argparse

HELP = "build the LAMMPS plugin (pair_style so3k) or print its folder"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of the verb."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    build = actions.add_parser("build", help="compile the plugin against the installed torch and LAMMPS")
    build.add_argument("--force", action="store_true", help="compile again even if it is built")
    actions.add_parser("path", help="print the folder of the plugin, for LAMMPS_PLUGIN_PATH")


def run(args: argparse.Namespace) -> None:
    """Build the plugin or print its folder."""
    from so3k_md.engines import lammps

    if args.action == "path":
        print(lammps.require_plugin())
        return
    if args.force or lammps.find_plugin() is None:
        print("building the LAMMPS plugin: takes one to two minutes", flush=True)
    print(f"LAMMPS plugin: {lammps.build_plugin(args.force)}")
