"""Compiles libraries on the user's machine: their folders, the tools, and errors of the compiler."""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from so3k_md.errors import So3kError
from so3k_md.seals import seal, seal_of

DAY_S = 86400.0


def build_roots(kind: str) -> list[Path]:
    """Folders of builds: in the environment of these builds, or in the user's cache if it is read-only.

    Args:
        kind: name of the folder for one kind of builds.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [Path(sys.prefix) / "share" / "so3k-md" / kind, cache / "so3k-md" / kind]


def find_build(kind: str, key: str, *files: str) -> Path | None:
    """The folder of the build with this name and these files, if the files are unchanged since the build.

    A damaged library counts as missing, because loading a truncated library ends the process.
    """
    for folder in (root / key for root in build_roots(kind)):
        if all(is_whole(folder / file) for file in files):
            return folder
    return None


def is_whole(library: Path) -> bool:
    """Whether a library exists and has the correct seal of `install`."""
    try:
        return library.is_file() and seal_of(library) == "intact"
    except (So3kError, OSError):  # the file or its folder is not readable
        return False


def install(work: Path, target: Path, *files: str) -> None:
    """Seal the built files and move them to the target, each atomically and in the given order."""
    target.mkdir(exist_ok=True)
    for file in files:
        if not is_whole(work / file):
            (work / file).write_bytes(seal((work / file).read_bytes()))
        os.replace(work / file, target / file)


@contextmanager
def workshop(root: Path) -> Iterator[Path]:
    """A new folder to build in; folders of killed builds are removed first.

    Args:
        root: folder of all builds of a kind; other machines may share it.
    """
    own_prefix = f"building-{platform.node()}-"
    for folder in root.glob("building-*"):
        pid = folder.name.removeprefix(own_prefix).split("-")[0]
        killed = folder.name.startswith(own_prefix) and pid.isdecimal() and not _is_alive(int(pid))
        if killed or _age_s(folder) > DAY_S:
            shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=f"{own_prefix}{os.getpid()}-") as work:
        yield Path(work)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # the process belongs to another user
        return True
    return True


def _age_s(folder: Path) -> float:
    try:
        return time.time() - folder.stat().st_mtime
    except OSError:  # another build has removed it
        return 0.0


def writable_root(kind: str, what: str) -> Path:
    """The first folder for builds that is writable.

    Args:
        kind: see `build_roots`.
        what: name of what is built, for the message.

    Raises:
        So3kError: no folder is writable.
    """
    roots = build_roots(kind)
    for root in roots:
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(root, os.W_OK):
            return root
    places = " and ".join(map(str, roots))
    raise So3kError(
        f"{what} cannot be built, because {places} cannot be written: set XDG_CACHE_HOME to a writable folder"
    )


def require_compiler(what: str) -> None:
    """Refuse to continue without a C++ compiler.

    Args:
        what: name of what is built, for the message.

    Raises:
        So3kError: no compiler is found, or CXX does not name one.
    """
    wanted = os.environ.get("CXX")
    if wanted and not shutil.which(wanted) and not shutil.which((shlex.split(wanted) or [""])[0]):
        raise So3kError(
            f"CXX = {wanted} is not a program: set it to a C++17 compiler for {what}, or unset it"
        )
    if not wanted and not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        raise So3kError(f"no C++ compiler found for {what}: install g++ (C++17) or set CXX")


def tool(name: str, extra: str) -> str:
    """The path of a program in this environment, or else on the PATH.

    Args:
        name: of the program.
        extra: the extra of this package that installs it.

    Raises:
        So3kError: the program is in neither.
    """
    found = shutil.which(name, path=search_path())
    if found is None:
        raise So3kError(f"the program {name} is missing: pip install 'so3k-md[{extra}]'")
    return found


def search_path() -> str:
    """The PATH with this environment's programs first, although the environment may not be activated."""
    return os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])


def compile_step(command: Sequence[str], what: str, log: str) -> None:
    """Run a compiler, with ninja on the PATH, and turn its error into one line.

    Args:
        command: words of the command.
        what: what is compiled, with its verb, for the message.
        log: name of the file for the whole output.

    Raises:
        So3kError: the command fails.
    """
    environment = {**os.environ, "PATH": search_path()}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode == 0:
        return
    file = Path(tempfile.gettempdir()) / f"so3k-md-{log}.{os.getpid()}.log"
    file.write_text(done.stdout + done.stderr)
    raise So3kError(f"{what} compile: {_reason(done.stderr + done.stdout)}; the whole log is {file}")


def _reason(log: str) -> str:
    """The first error of a log; errors of CMake end in a colon and continue in indented lines."""
    lines = log.splitlines()
    marks = ("error:", "error")  # errors of the compiler before those of its caller
    first = next((n for mark in marks for n, line in enumerate(lines) if mark in line.lower()), None)
    if first is None:
        return "no reason given"
    below = takewhile(lambda line: line.startswith(" "), lines[first + 1 :])
    message = [lines[first], *(below if lines[first].endswith(":") else [])]
    return " ".join(line.strip() for line in message)


def processor() -> str:
    """The properties of the processor that `-march=native` uses; each kind of machine has its own build."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
