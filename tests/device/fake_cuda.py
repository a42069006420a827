"""Builds and loads libcuda and libnvrtc that run the kernels for GPUs on the CPU."""

import ctypes
import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pretend

from so3k_md.builds import build_roots

HERE = Path(__file__).parent
LIBRARIES = ("libcuda.so.1", "libnvrtc.so.13", "libnvrtc.so.12")


@cache
def load_fake_cuda() -> ctypes.CDLL:
    """The driver, under whose name a program that looks for a driver finds it in this process."""
    sources = [HERE / "fake_cuda.cpp", HERE / "emulate.h"]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    folder = build_roots("emulation")[1] / digest
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(sources[1], folder)
    os.environ["SO3K_EMULATION"] = str(folder)
    ctypes.CDLL(pretend.load_device()._name, mode=ctypes.RTLD_GLOBAL)  # the driver opens the device's memory
    loaded = []
    for name in LIBRARIES:
        if not (folder / name).exists():
            part = folder / f"{name}.{os.getpid()}"
            flags = ["-std=c++17", "-O1", "-fPIC", "-shared", f"-Wl,-soname,{name}"]
            subprocess.run(["g++", *flags, str(sources[0]), "-o", str(part)], check=True)
            part.replace(folder / name)
        loaded.append(ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL))
    return loaded[0]


def launches() -> int:
    """Number of kernels that this process has launched."""
    count = load_fake_cuda().so3k_launches
    count.restype = ctypes.c_long
    return int(count())
