"""The command line `so3k-md VERB …`; each verb has a file in this folder.

The file of a verb defines `HELP` (one line), `configure(parser)` and `run(args)`; only `run` imports heavy
packages. A `So3kError` is printed as one line on stderr, and the exit code is 2. A `So3kWarning` is printed
as one line on stderr, and the program continues.
"""

import argparse
import difflib
import importlib
import keyword
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

from so3k_md import __version__
from so3k_md.errors import So3kError, So3kWarning, Stopped

VERBS = (
    "train",
    "finetune",
    "curves",
    "eval",
    "export",
    "import",
    "info",
    "kernels",
    "lammps",
    "analyze",
    "doctor",
)

# Import name of each optional package -> the extra that installs it.
EXTRAS = {
    "openmm": "openmm",
    "openmmtorch": "openmm",
    "openmmml": "openmm",
    "vesin_torch": "openmm",
    "lammps": "lammps",
    "mdtraj": "analysis",
    "matplotlib": "analysis",
    "h5py": "analysis",
    "tables": "analysis",
    "tensorboard": "analysis",
    "so3krates_torch": "so3lr",
}


class Parser(argparse.ArgumentParser):
    """An argument parser that raises its errors as `So3kError`, so that each is printed as one line."""

    def error(self, message: str) -> NoReturn:
        """Raise a `So3kError` instead of printing the usage and exiting."""
        raise So3kError(f"{message}; see `{self.prog} --help`")


def load_verb(name: str) -> ModuleType:
    """The module of one verb; its name ends with an underscore if the verb is a keyword of Python."""
    return importlib.import_module(f"so3k_md.cli.{name}{'_' if keyword.iskeyword(name) else ''}")


def build_parser(verbs: tuple[str, ...]) -> Parser:
    """The parser of the given verbs; `parse` gives only the verb in use, so that no other is imported."""
    common = Parser(add_help=False)
    # SUPPRESS: with a default, the parser of the verb would overwrite a `--debug` before the verb
    common.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
    )
    parser = Parser(
        "so3k-md",
        description="Train So3krates force fields and run them in ASE, OpenMM and LAMMPS.",
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"so3k-md {__version__}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name in verbs:
        verb = load_verb(name)
        child = subparsers.add_parser(name, help=verb.HELP, description=verb.HELP, parents=[common])
        verb.configure(child)
        child.set_defaults(run=verb.run)
    return parser


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the arguments of one verb.

    Raises:
        So3kError: the verb or an argument is unknown.
    """
    chosen = next((word for word in argv if not word.startswith("-")), None)
    if chosen is not None and chosen not in VERBS:
        near = difflib.get_close_matches(chosen, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(VERBS)}"
        raise So3kError(f"unknown verb '{chosen}': {hint}")
    parser = build_parser((chosen,) if chosen else VERBS)
    args, rest = parser.parse_known_args(argv)
    # argparse fills a positional list from the first consecutive words; later words remain in `rest`
    if late := [word for word in rest if not word.startswith("-")]:
        if not hasattr(args, "overrides"):
            parser.error(f"unrecognized arguments: {' '.join(late)}")
        args.overrides += late
    if unknown := [word for word in rest if word.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return args


def describe(error: BaseException) -> tuple[str, int]:
    """The one line on stderr for an exception, and the exit code."""
    if isinstance(error, So3kError):
        return str(error), 2
    if isinstance(error, ModuleNotFoundError) and (package := str(error.name).split(".")[0]) in EXTRAS:
        return f"the package {package} is not installed: pip install 'so3k-md[{EXTRAS[package]}]'", 2
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return (
            f"{error.strerror or error}{where}: free space, change permissions or choose another path",
            2,
        )
    if isinstance(error, Stopped):
        return str(error), error.code
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C", 130
    return f"{type(error).__name__}: {error}; run again with --debug for the traceback", 1


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    words = sys.argv[1:] if argv is None else argv

    def work() -> None:
        args = parse(words)
        args.run(args)

    return guarded(work, debug="--debug" in words)


def guarded(work: Callable[[], None], debug: bool = False) -> int:
    """Call `work` and return the exit code.

    It is 0 without an error, 2 for an error that the user can correct, 128 + its number for a signal (130 for
    Ctrl-C), and 1 for any other exception.
    """
    try:
        with plain_warnings():
            work()
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        discard_stdout(error)
        if isinstance(error, BrokenPipeError):  # `so3k-md … | head` closed the pipe: no error
            return 0
        line, code = describe(error)
        print("so3k-md: error:", " ".join(line.split()), file=sys.stderr)
        return code
    return 0


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print each distinct `So3kWarning` once, as one line on stderr."""
    printed: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, So3kWarning):
            original(message, category, *place, **more)
        elif str(message) not in printed:
            printed.add(str(message))
            print("so3k-md: warning:", message, file=sys.stderr)

    with warnings.catch_warnings():
        original = warnings.showwarning
        warnings.simplefilter("always", So3kWarning)
        warnings.showwarning = show
        yield


def discard_stdout(error: BaseException) -> None:
    """Redirect a stdout that cannot be written to the null device; otherwise Python fails again at exit."""
    if not isinstance(error, OSError):
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
