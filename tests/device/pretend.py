"""Builds and loads the pretended device, and lists the waits for it."""

import ctypes
import hashlib
import traceback
import types
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from so3k_md.builds import build_roots

SOURCE = Path(__file__).with_name("pretend.cpp")
PACKAGE = "so3k_md/"
REPORT = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p)


@cache
def load_device() -> ctypes.CDLL:
    """The device, built once for each version of torch and of the source, and known to torch as "pretend"."""
    from torch.utils.cpp_extension import load

    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    folder = build_roots("pretend")[1] / f"torch{torch.__version__}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    load("so3k_pretend", [str(SOURCE)], extra_cflags=["-O1"], build_directory=folder, is_python_module=False)
    torch.utils.rename_privateuse1_backend("pretend")
    module = types.ModuleType("pretend")
    for name, value in {
        "is_available": True,
        "is_initialized": True,
        "current_device": 0,
        "device_count": 1,
        "_is_in_bad_fork": False,
    }.items():
        setattr(module, name, lambda value=value: value)
    torch._register_device_module("pretend", module)
    return ctypes.CDLL(str(folder / "so3k_pretend.so"))


@contextmanager
def waits(places: bool = True) -> Iterator[Counter[tuple[str, str]]]:
    """How often the host waits for the device within the context, by operator and line of so3k_md.

    Args:
        places: whether to tell the lines; impossible for frozen modules.
    """
    found: Counter[tuple[str, str]] = Counter()

    def hear(what: bytes, place: bytes) -> None:
        lines = place.decode().split() or [
            f"{frame.filename}:{frame.lineno}" for frame in reversed(traceback.extract_stack())
        ]
        own = [line.rpartition(PACKAGE)[2] for line in lines if PACKAGE in line]
        found[what.decode(), own[0] if own else "elsewhere"] += 1

    report = REPORT(hear)
    load_device().so3k_pretend_report(report, places)
    try:
        yield found
    finally:
        load_device().so3k_pretend_report(REPORT(), False)


def most_bytes() -> int:
    """The largest number of bytes of tensors on the device since the last call."""
    count = load_device().so3k_pretend_most
    count.restype = ctypes.c_size_t
    return int(count())
