"""Builds, finds and loads the compiled kernels, once for each environment."""

import hashlib
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from so3k_md.builds import (
    build_roots,
    compile_step,
    find_build,
    install,
    processor,
    require_compiler,
    tool,
    workshop,
    writable_root,
)

KIND, WHAT = "kernels", "the kernels"
LIBRARY = "so3k_kernels.so"
SOURCES = Path(__file__).parent / "cpu"
GPU = Path(__file__).parent / "gpu"
# exact up to rounding: sums may run in another order, and all instructions of this processor may be used
FLAGS = ["-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-std=c++17"]


def find_kernels() -> Path | None:
    """The library built for this environment, this processor and these sources, or None."""
    folder = find_build(KIND, build_key(), LIBRARY)
    return folder and folder / LIBRARY


@cache
def load_kernels() -> bool:
    """Register the kernels with torch, once per process; False if they are not built."""
    if hasattr(torch.ops.so3k, "attend"):  # LAMMPS has loaded them in this process
        return True
    library = find_kernels()
    if library is not None:
        torch.ops.load_library(str(library))
    return library is not None


@contextmanager
def known_operators() -> Iterator[None]:
    """Context in which TorchScript that calls the kernels can be compiled, also if they are not built."""
    if load_kernels():
        yield
        return
    library = torch.library.Library("so3k", "FRAGMENT")
    try:
        for schema in schemas():
            library.define(schema)
        yield
    finally:
        library._destroy()
        for schema in schemas():  # torch keeps the schemas that it was asked for
            vars(torch.ops.so3k).pop(schema.split("(")[0], None)


def schemas() -> list[str]:
    """The schemas of the operators, read from the header that C++ includes."""
    text = (SOURCES / "operators.h").read_text()
    found = re.findall(r'constexpr auto \w+ =((?:\s*"[^"]*")+);', text)
    return ["".join(re.findall(r'"([^"]*)"', words)) for words in found]


def build_kernels(force: bool = False) -> Path:
    """Compile the kernels for the installed torch and this processor, unless they exist.

    Args:
        force: compile again.

    Raises:
        So3kError: no compiler, no folder to write to, or the compiler fails.
    """
    built = find_kernels()
    if built and not force:
        return built
    require_compiler(WHAT)
    tool("ninja", extra="kernels")
    target = writable_root(KIND, WHAT) / build_key()
    with workshop(target.parent) as work:
        compile_in(work)
        install(work, target, LIBRARY)
    return target / LIBRARY


def sources() -> list[Path]:
    """The C++ files."""
    return [*sorted(SOURCES.glob("*.cpp")), *sorted(GPU.glob("*.cpp"))]


def device_sources() -> list[Path]:
    """The files that NVRTC compiles; the library holds their text."""
    formulas = [SOURCES / name for name in ("dispersion.h", "everywhere.h", "exchange.h", "switching.h")]
    names = ("attention.h", "groups.h", "lists.h", "long_range.h", "near.h", "pairs.h")
    arguments = [GPU / name for name in names]
    return [*formulas, *arguments, *sorted((GPU / "device").iterdir())]


def cached_programs(card: str) -> dict[str, int]:
    """Number of shapes for which each source for GPUs is compiled, in the user's cache.

    Args:
        card: architecture, such as sm_90.
    """
    names = [file.name.split(f"-{card}-")[0] for file in build_roots("gpu")[1].glob(f"*-{card}-*.cubin")]
    return {name: names.count(name) for name in sorted(set(names))}


def build_key() -> str:
    """Name of a build: version of torch, processor, and a hash of the sources."""
    content = hashlib.sha256(" ".join(FLAGS).encode())
    for file in sorted([*SOURCES.glob("*.[ch]*"), *GPU.glob("*.[ch]*"), *device_sources()]):
        content.update(file.name.encode() + file.read_bytes())
    content.update(processor().encode())
    return f"torch{torch.__version__}-{platform.machine()}-{content.hexdigest()[:12]}"


def compile_in(folder: Path) -> None:
    """Compile the library by torch's extension builder, in a separate process because it loads the result."""
    program = (
        "import sys; from torch.utils.cpp_extension import load; "
        "load(sys.argv[1], sys.argv[4:], extra_cflags=sys.argv[2].split(), build_directory=sys.argv[3], "
        "is_python_module=False)"
    )
    for file in device_sources():
        shutil.copy(file, folder)
    name = LIBRARY.removesuffix(".so")
    # -P: files in the working directory must not be imported as modules
    words = [sys.executable, "-P", "-W", "ignore", "-c", program, name, " ".join(FLAGS), str(folder)]
    compile_step([*words, *map(str, sources())], f"{WHAT} do not", "kernels-build")
