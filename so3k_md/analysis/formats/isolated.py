"""Reads formats that need C libraries in a separate process, so that a crash of it is a one-line error."""

import importlib.util
import io
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from so3k_md.analysis.formats.frames import Frames, as_cells, refuse_none
from so3k_md.errors import So3kError
from so3k_md.units import NM_IN_ANGSTROM

CHILD = Path(__file__).with_name("child.py")
PATIENCE_S = 60.0  # s without an answer, after which the reading process is stopped
MEMORY = 4 << 30  # bytes, address space of the reading process in addition to the size of the file
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


class Broken(Exception):
    """The reading process failed; the text is the reason."""


def read_isolated(path: Path, kind: str, stride: int) -> Frames:
    """Every stride-th complete frame of an XTC or HDF5 file, read by another process.

    Args:
        path: the file.
        kind: xtc or hdf5.
        stride: use every stride-th frame.

    Raises:
        So3kError: no complete frame, or the library that reads such files is not installed.
    """
    require("mdtraj" if kind == "xtc" else "h5py")
    parts: list[dict[str, Any]] = []
    lost: list[str] = []
    topology: str | None = None
    try:
        for message in messages(path, kind, stride):
            match str(message["kind"]):
                case "frames":
                    parts.append(message)
                case "topology":
                    topology = str(message["text"])
                case "lost":
                    lost.append(str(message["text"]))
    except Broken as broken:
        lost.append(f"reading stopped after {sum(len(part['xyz']) for part in parts)} frames: {broken}")
    if not parts:
        refuse_none(path, lost)
    return assemble(parts, lost, topology)


def assemble(parts: list[dict[str, Any]], lost: list[str], topology: str | None) -> Frames:
    """The frames of all messages, converted from nm to Å."""
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != "kind"}
    cells = joined.get("cells")
    if cells is not None:
        cells = cells.astype(np.float64) * NM_IN_ANGSTROM
    elif "cell_lengths" in joined and "cell_angles" in joined:
        cells = as_cells(joined["cell_lengths"] * NM_IN_ANGSTROM, joined["cell_angles"])
    return Frames(
        positions=joined["xyz"].astype(np.float64) * NM_IN_ANGSTROM,
        cells=cells if cells is not None and cells.any() else None,
        number=joined["number"],
        time=joined["time"].astype(np.float64) if "time" in joined else None,
        lost=tuple(lost),
        topology=topology,
    )


def isolated_topology(path: Path) -> str:
    """The topology in an HDF5 file, as JSON.

    Raises:
        So3kError: the file has no topology or cannot be read.
    """
    require("h5py")
    try:
        found = [str(message["text"]) for message in messages(path, "topology", 1)]
    except Broken as broken:
        raise So3kError(f"{path} cannot be read as HDF5 ({broken}): write it again") from broken
    if not found:
        raise So3kError(f"{path} holds no topology: pass --top with a PDB or mmCIF file of the same atoms")
    return found[0]


def require(package: str) -> None:
    """Refuse to start a reading process without the package of the extra `analysis` that it needs."""
    if importlib.util.find_spec(package) is None:
        raise So3kError(f"this format needs the package {package}: pip install 'so3k-md[analysis]'")


def messages(path: Path, kind: str, stride: int) -> Iterator[dict[str, Any]]:
    """The messages of the reading process.

    Raises:
        Broken: the process crashed, did not answer, ran out of memory, or found the file damaged.
    """
    memory = MEMORY + path.stat().st_size
    command = [sys.executable, "-P", str(CHILD), kind, str(path.resolve()), str(stride), str(memory)]
    environment = os.environ | ONE_THREAD
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=environment
    ) as process:
        try:
            while True:
                message = receive(process)
                if message["kind"] == "done":
                    return
                if message["kind"] == "error":
                    raise Broken(str(message["text"]))
                yield message
        finally:
            process.kill()


def receive(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The next message of the reading process."""
    (length,) = struct.unpack("<q", receive_bytes(process, 8))
    with np.load(io.BytesIO(receive_bytes(process, length)), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def receive_bytes(process: subprocess.Popen[bytes], length: int) -> bytes:
    """Read bytes from the process.

    Raises:
        Broken: it ended, or gave no answer within PATIENCE_S.
    """
    assert process.stdout is not None
    handle = process.stdout.fileno()
    pieces, missing, deadline = [], length, time.monotonic() + PATIENCE_S
    while missing:
        ready, _, _ = select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise Broken(f"the library that reads such files gave no answer within {PATIENCE_S:g} s")
        piece = os.read(handle, min(missing, 1 << 20))
        if not piece:
            code = process.wait()
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            raise Broken(f"the library that reads such files {how}; the file is damaged")
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)
