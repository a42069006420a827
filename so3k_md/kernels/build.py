"""The compiled kernels: built once per environment by torch's own tools, found and loaded by themselves."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

import torch

from so3k_md.errors import So3kError

LIBRARY = "so3k_kernels.so"
# exact to rounding, yet free to add in another order and to use what this processor has
FLAGS = ["-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-std=c++17"]


def find_kernels() -> Path | None:
    """The library that was built for this environment, this processor and these sources; None without one."""
    key = build_key()
    return next((root / key / LIBRARY for root in build_roots() if (root / key / LIBRARY).is_file()), None)


@cache
def load_kernels() -> bool:
    """Make the kernels known to torch, once per process; False where they are not built."""
    if hasattr(torch.ops.so3k, "attend"):  # LAMMPS has loaded them in this process
        return True
    library = find_kernels()
    if library is not None:
        torch.ops.load_library(str(library))
    return library is not None


def build_kernels(force: bool = False) -> Path:
    """Compile the kernels for the installed torch and this processor, unless they are there.

    Args:
        force: compile again.

    Raises:
        So3kError: no compiler, no folder to write to, or the compiler fails.
    """
    built = find_kernels()
    if built and not force:
        return built
    if not os.environ.get("CXX") and not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        raise So3kError("no C++ compiler found for the kernels: install g++ (C++17) or set CXX")
    if shutil.which("ninja", path=search_path()) is None:
        raise So3kError("the program ninja is missing: pip install 'so3k-md[kernels]'")
    target = writable_root() / build_key()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="building-") as work:
        compile_in(Path(work))
        target.mkdir(exist_ok=True)
        os.replace(Path(work) / LIBRARY, target / LIBRARY)
    return target / LIBRARY


def sources() -> list[Path]:
    """The C++ files, beside this one."""
    return sorted(Path(__file__).parent.glob("*.cpp"))


def build_key() -> str:
    """Name of a build: torch, processor, and a hash of what it was made from."""
    content = hashlib.sha256(" ".join(FLAGS).encode())
    for file in sorted(Path(__file__).parent.glob("*.[ch]*")):
        content.update(file.name.encode() + file.read_bytes())
    content.update(_processor().encode())
    return f"torch{torch.__version__}-{platform.machine()}-{content.hexdigest()[:12]}"


def build_roots() -> list[Path]:
    """Where builds lie: in the environment they belong to, or in the user's cache if that is read-only."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [Path(sys.prefix) / "share" / "so3k-md" / "kernels", user / "so3k-md" / "kernels"]


def writable_root() -> Path:
    """The first folder for builds that can be written.

    Raises:
        So3kError: none can.
    """
    for root in build_roots():
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(root, os.W_OK):
            return root
    places = " and ".join(str(root) for root in build_roots())
    raise So3kError(f"no place to build the kernels, {places} cannot be written: set XDG_CACHE_HOME")


def compile_in(folder: Path) -> None:
    """Let torch's extension builder make the library, in a process of its own, as it would load it here."""
    program = (
        "import sys; from torch.utils.cpp_extension import load; "
        "load(sys.argv[1], sys.argv[4:], extra_cflags=sys.argv[2].split(), build_directory=sys.argv[3], "
        "is_python_module=False)"
    )
    name = LIBRARY.removesuffix(".so")
    words = [sys.executable, "-W", "ignore", "-c", program, name, " ".join(FLAGS), str(folder)]
    environment = {**os.environ, "PATH": search_path()}
    done = subprocess.run(
        [*words, *map(str, sources())], capture_output=True, text=True, env=environment, cwd=folder
    )
    if done.returncode or not (folder / LIBRARY).is_file():
        log = Path(tempfile.gettempdir()) / f"so3k-md-kernels-build.{os.getpid()}.log"
        log.write_text(done.stdout + done.stderr)
        lines = (done.stderr + done.stdout).splitlines()
        reason = next((line.strip() for line in lines if "error:" in line.lower()), "no reason given")
        raise So3kError(f"the kernels do not compile: {reason}; the whole log is {log}")


def search_path() -> str:
    """The PATH with this environment's programs first, although the environment may not be activated."""
    return os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])


def _processor() -> str:
    """What `-march=native` looks at, so that a home directory shared by machines holds a build for each."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
