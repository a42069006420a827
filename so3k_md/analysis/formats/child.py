"""Reads XTC and HDF5 files in a separate process, because damaged files can crash the libraries for them.

`isolated.py` runs it as a script: `python -P child.py KIND PATH STRIDE MEMORY`. KIND is xtc, hdf5 or
topology; MEMORY limits the address space, bytes. Each message on stdout is its length in 8 bytes and an npz
archive, whose entry `kind` is frames, lost, topology, error or done.
"""

import io
import os
import resource
import struct
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

Message = dict[str, Any]
BATCH = 16_000_000  # most bytes of positions in a message
XTC_MAGIC = {1995: 4, 2023: 8}  # and the bytes in which a frame states its compressed length
FEW_ATOMS = 9  # up to so many atoms XTC does not compress the positions
NM = {"nanometers": 1.0, "nanometer": 1.0, "nm": 1.0, "angstroms": 0.1, "angstrom": 0.1}
MAX_DEFLATE_RATIO = 1032  # largest ratio of compression by deflate


class Padded(io.RawIOBase):
    """A file that reads as zeros beyond its end, because HDF5 refuses to open a truncated file."""

    def __init__(self, path: str) -> None:
        self.file = open(path, "rb")  # noqa: SIM115 — closed with the process
        self.length = os.path.getsize(path)
        self.at = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set the offset of the next read; it may lie beyond the end of the file."""
        self.at = offset + (0, self.at, 1 << 62)[whence]
        return self.at

    def tell(self) -> int:
        """The offset of the next read."""
        return self.at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with bytes of the file and, beyond its end, with zeros."""
        view = memoryview(buffer).cast("B")
        self.file.seek(min(self.at, self.length))
        found = self.file.read(len(view))
        view[: len(found)] = found
        view[len(found) :] = bytes(len(view) - len(found))
        self.at += len(view)
        return len(view)


def walk_xtc(path: str) -> tuple[list[int], list[int], int]:
    """Offset and number of each complete frame of an XTC, and the bytes of incomplete frames."""
    size = os.path.getsize(path)
    offsets: list[int] = []
    frame_numbers: list[int] = []
    incomplete = frame_number = at = atoms = 0
    with open(path, "rb") as file:
        while at < size:
            length, count = xtc_frame(file, at, atoms)
            if length and at + length <= size:
                atoms = atoms or count
                offsets.append(at)
                frame_numbers.append(frame_number)
                at, frame_number = at + length, frame_number + 1
                continue
            after = next_xtc(file, at + 1, size, atoms)
            incomplete, frame_number, at = incomplete + after - at, frame_number + 1, after
    return offsets, frame_numbers, incomplete


def xtc_frame(file: BinaryIO, at: int, atoms: int) -> tuple[int, int]:
    """Bytes and atoms of the frame at an offset; 0 and 0 if no frame starts there."""
    file.seek(at)
    raw = file.read(100)
    if len(raw) < 56:
        return 0, 0
    magic, count = struct.unpack(">2i", raw[:8])
    (repeated,) = struct.unpack(">i", raw[52:56])
    if magic not in XTC_MAGIC or count != repeated or count <= 0 or (atoms and count != atoms):
        return 0, 0
    if count <= FEW_ATOMS:
        return 56 + 12 * count, count
    width = XTC_MAGIC[magic]
    if len(raw) < 88 + width:
        return 0, 0
    (compressed,) = struct.unpack(">i" if width == 4 else ">q", raw[88 : 88 + width])
    if not 0 < compressed < 1 << 40:
        return 0, 0
    return 88 + width + 4 * (-(-compressed // 4)), count


def next_xtc(file: BinaryIO, start: int, size: int, atoms: int) -> int:
    """The offset of the next frame with the same number of atoms, or the end of the file."""
    at = start
    while atoms and at < size:
        file.seek(at)
        piece = file.read(1 << 20)
        for magic in XTC_MAGIC:
            found = piece.find(struct.pack(">2i", magic, atoms))
            if found >= 0 and xtc_frame(file, at + found, atoms)[0]:
                return at + found
        at += max(len(piece) - 8, 1)
    return size


def read_xtc(path: str, stride: int) -> Iterator[Message]:
    """Messages with every stride-th complete frame of an XTC."""
    from mdtraj.formats.xtc import XTCTrajectoryFile

    offsets, frame_numbers, incomplete = walk_xtc(path)
    if incomplete:
        yield {"kind": "lost", "text": f"{incomplete:,} bytes of incomplete frames are left out"}
    if not offsets:
        return
    if frame_numbers[-1] >= len(frame_numbers):
        # mdtraj stops at an incomplete frame: it reads a copy without such frames
        path = without_incomplete(path, offsets)
    with XTCTrajectoryFile(path) as file:
        yield from xtc_frames(file, frame_numbers, stride)


def xtc_frames(file: Any, frame_numbers: list[int], stride: int) -> Iterator[Message]:
    """Every stride-th frame; mdtraj reads up to BATCH bytes of positions at a time."""
    per_read, done = 1, 0
    while done < len(frame_numbers):
        xyz, time, _, box = file.read(n_frames=min(per_read, len(frame_numbers) - done))
        if not len(xyz):
            return
        numbers = np.array(frame_numbers[done : done + len(xyz)], dtype=np.int64)
        cells = np.zeros((len(xyz), 3, 3)) if box is None else box
        taken = slice(-done % stride, None, stride)
        if len(numbers[taken]):
            yield {"kind": "frames", "xyz": xyz[taken], "cells": cells[taken]} | {
                "time": time[taken],
                "number": numbers[taken],
            }
        done += len(xyz)
        per_read = max(1, BATCH // xyz[0].nbytes)  # known after the first frame


def without_incomplete(path: str, offsets: list[int]) -> str:
    """The path of a temporary file with the complete frames only; it is deleted when the process ends."""
    handle, name = tempfile.mkstemp(suffix=".xtc")
    os.unlink(name)
    with open(path, "rb") as source:
        for at in offsets:
            length, _ = xtc_frame(source, at, 0)
            source.seek(at)
            os.write(handle, source.read(length))
    os.lseek(handle, 0, os.SEEK_SET)
    return f"/dev/fd/{handle}"


def open_hdf5(path: str) -> tuple[Any, bool]:
    """An open HDF5 file, and whether it is truncated."""
    import h5py

    try:
        return h5py.File(path, "r", locking=False), False
    except OSError as error:
        if "truncated file" not in str(error):
            raise
        return h5py.File(Padded(path), "r"), True


def read_hdf5(path: str, stride: int) -> Iterator[Message]:
    """Messages with every stride-th complete frame of an HDF5 trajectory of mdtraj."""
    file, cut = open_hdf5(path)
    if cut:
        yield {"kind": "lost", "text": "the file is truncated"}
    yield from read_topology(path)
    if "coordinates" not in file:
        yield {"kind": "error", "text": "it has no dataset `coordinates`, which trajectories of mdtraj have"}
        return
    data = file["coordinates"]
    if data.ndim != 3 or data.shape[2] != 3 or data.dtype.kind != "f":
        yield {
            "kind": "error",
            "text": f"its coordinates are {data.dtype} {data.shape}, not float (n, atoms, 3)",
        }
        return
    size = os.path.getsize(path)
    whole = whole_rows(data, size)
    extra = {name: column(file, name, size) for name in ("time", "cell_lengths", "cell_angles")}
    counts = [len(values) for values in extra.values() if values is not None]
    n_frames = min([len(data), *counts])
    missing = len(data) - int(whole[:n_frames].sum())
    if missing > 0:
        yield {"kind": "lost", "text": f"{missing} of {len(data)} frames are not in the file"}
    factor = NM.get(unit_of(data), 1.0)
    complete = np.flatnonzero(whole[:n_frames])[::stride]
    per_read = max(1, BATCH // max(data.shape[1] * 12, 1))
    for start in range(0, len(complete), per_read):
        rows = complete[start : start + per_read]
        xyz = (factor * data[rows[0] : rows[-1] + 1])[rows - rows[0]].astype(np.float32)
        message: Message = {"kind": "frames", "xyz": xyz, "number": rows.astype(np.int64)}
        yield message | {name: values[rows] for name, values in extra.items() if values is not None}


def whole_rows(data: Any, size: int) -> np.ndarray:
    """Which rows of a dataset are complete: all of their chunks lie within the length of the file."""
    chunks = data.chunks
    if chunks is None:
        offset = data.id.get_offset()
        inside = 0 if offset is None else (size - offset) * len(data) // max(data.id.get_storage_size(), 1)
        return np.arange(min(len(data), max(inside, 0))) >= 0
    if np.prod(chunks, dtype=float) * data.dtype.itemsize > MAX_DEFLATE_RATIO * size:
        return np.zeros(0, dtype=bool)
    found: dict[int, int] = {}

    def visit(info: Any) -> None:
        if info.byte_offset + info.size <= size:
            found[info.chunk_offset[0]] = found.get(info.chunk_offset[0], 0) + 1

    data.id.chunk_iter(visit)
    wanted = int(np.prod([-(-n // c) for n, c in zip(data.shape[1:], chunks[1:], strict=True)], dtype=float))
    last = max((start for start in found if start < len(data)), default=-chunks[0]) + chunks[0]
    whole = np.zeros(min(last, len(data)), dtype=bool)
    for start, count in found.items():
        if start < len(data):
            whole[start : start + chunks[0]] = count >= wanted
    return whole


def column(file: Any, name: str, size: int) -> np.ndarray | None:
    """A dataset with a row for each frame, up to its first row that is not in the file."""
    if name not in file:
        return None
    data = file[name]
    whole = whole_rows(data, size)
    gaps = np.flatnonzero(~whole)
    values = np.asarray(data[: int(gaps[0]) if len(gaps) else len(whole)], dtype=np.float64)
    return values * NM.get(unit_of(data), 1.0) if name == "cell_lengths" else values


def unit_of(data: Any) -> str:
    """The unit of length that a dataset states, nanometers if none."""
    unit = data.attrs.get("units", "nanometers")
    return unit.decode() if isinstance(unit, bytes) else str(unit)


def read_topology(path: str) -> Iterator[Message]:
    """A message with the topology in an HDF5 trajectory, a JSON text."""
    file, _ = open_hdf5(path)
    if "topology" in file:
        raw = file["topology"][0]
        yield {"kind": "topology", "text": raw.decode() if isinstance(raw, bytes) else str(raw)}


def send(message: Message) -> None:
    """Write a message to stdout."""
    buffer = io.BytesIO()
    np.savez(buffer, **message)
    out = sys.stdout.buffer
    out.write(struct.pack("<q", buffer.tell()))
    out.write(buffer.getbuffer())
    out.flush()


def main(kind: str, path: str, stride: str, memory: str) -> None:
    """Send the complete frames; an error of the reading library becomes a message."""
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    messages = read_topology(path) if kind == "topology" else READERS[kind](path, int(stride))
    try:
        for message in messages:
            send(message)
    except BrokenPipeError:
        return
    except Exception as error:  # the libraries raise exceptions of many types for damaged files
        text = next((line for line in str(error).splitlines() if line.strip()), "") or type(error).__name__
        send({"kind": "error", "text": text[:120]})
    send({"kind": "done"})


READERS = {"xtc": read_xtc, "hdf5": read_hdf5}

if __name__ == "__main__":
    main(*sys.argv[1:])
