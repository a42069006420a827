"""The compiled kernels: built once per environment by torch's own tools, found and loaded by themselves."""

import hashlib
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

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

KIND, WHAT = "kernels", "the kernels"
LIBRARY = "so3k_kernels.so"
SOURCES = Path(__file__).parent / "cpu"
# exact to rounding, yet free to add in another order and to use what this processor has
FLAGS = ["-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-std=c++17"]


def find_kernels() -> Path | None:
    """The library that was built for this environment, this processor and these sources; None without one."""
    folder = find_build(KIND, build_key(), LIBRARY)
    return folder and folder / LIBRARY


@cache
def load_kernels() -> bool:
    """Make the kernels known to torch, once per process; False where they are not built."""
    if hasattr(torch.ops.so3k, "attend"):  # LAMMPS has loaded them in this process
        return True
    library = find_kernels()
    if library is not None:
        torch.ops.load_library(str(library))
    return library is not None


@contextmanager
def known_operators() -> Iterator[None]:
    """Within it TorchScript that calls the kernels can be compiled, if need be by their names alone."""
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
        for schema in schemas():  # torch remembers those that it was asked for
            vars(torch.ops.so3k).pop(schema.split("(")[0], None)


def schemas() -> list[str]:
    """Of the operators, from the file of which C++ has them too."""
    text = (SOURCES / "operators.h").read_text()
    found = re.findall(r'constexpr auto \w+ =((?:\s*"[^"]*")+);', text)
    return ["".join(re.findall(r'"([^"]*)"', words)) for words in found]


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
    require_compiler(WHAT)
    tool("ninja", extra="kernels")
    target = writable_root(KIND, WHAT) / build_key()
    with workshop(target.parent) as work:
        compile_in(work)
        install(work, target, LIBRARY)
    return target / LIBRARY


def sources() -> list[Path]:
    """The C++ files."""
    return sorted(SOURCES.glob("*.cpp"))


def build_key() -> str:
    """Name of a build: torch, processor, and a hash of what it was made from."""
    content = hashlib.sha256(" ".join(FLAGS).encode())
    for file in sorted(SOURCES.glob("*.[ch]*")):
        content.update(file.name.encode() + file.read_bytes())
    content.update(processor().encode())
    return f"torch{torch.__version__}-{platform.machine()}-{content.hexdigest()[:12]}"


def compile_in(folder: Path) -> None:
    """Let torch's extension builder make the library, in a process of its own, as it would load it here."""
    program = (
        "import sys; from torch.utils.cpp_extension import load; "
        "load(sys.argv[1], sys.argv[4:], extra_cflags=sys.argv[2].split(), build_directory=sys.argv[3], "
        "is_python_module=False)"
    )
    name = LIBRARY.removesuffix(".so")
    # -P: what lies in the working directory is no module to import
    words = [sys.executable, "-P", "-W", "ignore", "-c", program, name, " ".join(FLAGS), str(folder)]
    compile_step([*words, *map(str, sources())], f"{WHAT} do not", "kernels-build")
