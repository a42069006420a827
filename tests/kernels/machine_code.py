"""Machine code of the kernels for GPUs by the NVRTC of torch's wheels, and the registers that it uses."""

import ctypes
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from so3k_md.kernels.build import device_sources


class Use(NamedTuple):
    """Resources of one kernel."""

    registers: int
    spilled: int  # bytes that a thread stores to local memory because registers are short


@cache
def nvrtc() -> Any | None:
    """The library, or None where the wheels do not bring it."""
    site = Path(find_spec("torch").origin).parents[1]
    for place in ("nvidia/cu13/lib/libnvrtc.so.13", "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"):
        if (site / place).is_file():
            return ctypes.CDLL(str(site / place))
    return None


def compiled(source: str, architecture: str, options: list[str]) -> dict[str, Use]:
    """Compile a file of kernels/gpu/device; resources by kernel.

    Args:
        source: name of the file.
        architecture: such as sm_90.
        options: -D options of a shape.
    """
    library = nvrtc()
    texts = {file.name: file.read_bytes() for file in device_sources()}
    headers = [name for name in texts if name.endswith(".h")]
    program = ctypes.c_void_p()
    strings = ctypes.c_char_p * len(headers)
    assert not library.nvrtcCreateProgram(
        ctypes.byref(program),
        texts[source],
        source.encode(),
        len(headers),
        strings(*(texts[name] for name in headers)),
        strings(*(name.encode() for name in headers)),
    )
    words = [f"--gpu-architecture={architecture}", "--std=c++17", "--ptxas-options=-v", *options]
    failed = library.nvrtcCompileProgram(
        program, len(words), (ctypes.c_char_p * len(words))(*(word.encode() for word in words))
    )
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    text = log.value.decode()
    assert not failed, text
    found = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores.*?Used (\d+) registers", text, re.S
    )
    return {name: Use(int(registers), int(spilled)) for name, spilled, registers in found}
