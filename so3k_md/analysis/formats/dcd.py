"""Reads DCD files of OpenMM, LAMMPS, CHARMM and NAMD; record marks show which frames are complete."""

import math
import mmap
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from so3k_md.analysis.formats.frames import Frames, as_cells, refuse_none
from so3k_md.analysis.geometry import Array, Integers
from so3k_md.errors import So3kError

CHARMM_TIME_PS = 0.04888821
MOST_CANDIDATES = 100_000  # offsets that are tried for the next frame after an incomplete one


class Layout(NamedTuple):
    """The layout of the records of a DCD."""

    order: str  # byte order, "<" or ">"
    mark: int  # bytes of a record mark, 4 or 8
    counts: tuple[int, ...]  # the 20 numbers of the header
    delta: float  # time step in the engine's unit
    openmm: bool
    atoms: int
    start: int  # offset of the first frame
    has_cell: bool
    records: tuple[int, ...]  # bytes of each record of a frame
    free: Integers | None = None  # free atoms, if others are fixed: frames after the first hold only these

    @property
    def frame(self) -> int:
        """Bytes of a frame."""
        return sum(self.records) + 2 * self.mark * len(self.records)

    def after_first(self) -> "Layout":
        """The layout of the frames after the first, which hold the free atoms only."""
        assert self.free is not None
        atoms = len(self.free)
        records = tuple(4 * atoms if size == 4 * self.atoms else size for size in self.records)
        return self._replace(atoms=atoms, start=self.start + self.frame, records=records)


def read_dcd(path: Path, stride: int) -> Frames:
    """Every stride-th complete frame of a DCD.

    A killed run leaves an incomplete last frame, or a header whose number of frames is wrong by one; a
    continued run leaves the incomplete frame in the middle. Frames are therefore found by their record marks.

    Args:
        path: a DCD.
        stride: use every stride-th frame.

    Raises:
        So3kError: not a DCD, or without a complete frame.
    """
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # closed when no array refers to it
    layout = read_layout(path, data)
    if layout.free is None:
        offsets, number, incomplete = find_frames(data, layout)
    else:
        offsets, number, incomplete = find_free_frames(path, data, layout)
    lost = [f"{incomplete:,} bytes of incomplete frames are left out"] if incomplete else []
    n_frames = int(number[-1]) + 1 if len(number) else 0
    stated = layout.counts[0]
    if stated > n_frames + (incomplete > 0):
        lost.append(f"its header states {stated} frames, and {len(offsets)} are complete")
    if not len(offsets):
        refuse_none(path, lost)
    offsets, number = offsets[::stride], number[::stride]
    positions, cells = (gather if layout.free is None else gather_free)(data, layout, offsets)
    first, every = layout.counts[1:3]
    interval = layout.delta * CHARMM_TIME_PS if layout.openmm and 0 < layout.delta < math.inf else None
    return Frames(
        positions=positions,
        cells=cells,
        number=number,
        steps=first + every * number if every > 0 else None,
        interval_ps=interval,
        lost=tuple(lost),
    )


def read_layout(path: Path, data: mmap.mmap) -> Layout:
    """Read the three records before the frames, and the list of free atoms if there is one."""
    marks = [(order, mark) for order in "<>" for mark in (4, 8)]
    kind = next((m for m in marks if starts_dcd(data, *m)), None)
    if kind is None:
        raise So3kError(f"{path} is not a DCD file, or its header is truncated: write the trajectory again")
    order, mark = kind
    at, record = 0, b""
    records: list[bytes] = []
    # a fourth record lists the free atoms if others are fixed
    while len(records) < 3 or (len(records) == 3 and fixed_atoms(records[0], order)):
        length = mark_at(data, at, order, mark)
        record = data[at + mark : at + mark + length]
        at += 2 * mark + length
        if length < 4 or at > len(data) or mark_at(data, at - mark, order, mark) != length:
            raise So3kError(f"{path} has a truncated or damaged header: write the trajectory again")
        records.append(record)
    counts = struct.unpack(f"{order}20i", records[0][4:84])
    (delta,) = struct.unpack(f"{order}f", records[0][40:44])
    (atoms,) = struct.unpack(f"{order}i", records[2][:4])
    if not 0 < atoms < len(data):
        raise So3kError(f"{path} is damaged: its header states {atoms} atoms; write the trajectory again")
    charmm = counts[19] != 0
    has_cell = bool(charmm and counts[10])
    axes = 4 if charmm and counts[11] else 3
    sizes = (48,) * has_cell + (4 * atoms,) * axes
    openmm = b"Created by OpenMM" in records[1]
    free = free_atoms(path, records[3], order, atoms, counts[8]) if counts[8] else None
    return Layout(order, mark, counts, delta, openmm, atoms, at, has_cell, sizes, free)


def fixed_atoms(header: bytes, order: str) -> int:
    """Number of fixed atoms; CHARMM and NAMD write their positions in the first frame only."""
    return int(struct.unpack(f"{order}i", header[36:40])[0])


def free_atoms(path: Path, record: bytes, order: str, atoms: int, fixed: int) -> Integers:
    """The atoms that are not fixed, counted from 0, of the fourth record.

    Raises:
        So3kError: the record is damaged.
    """
    found = np.frombuffer(record[: len(record) // 4 * 4], dtype=f"{order}i4").astype(np.int64) - 1
    if len(found) != atoms - fixed or not len(found) or (np.diff(found) < 1).any():
        found = np.full(1, -1)
    if found[0] < 0 or found[-1] >= atoms:
        raise So3kError(
            f"{path} is damaged: its list of free atoms does not fit {atoms} atoms of which {fixed} are "
            "fixed; write the trajectory again"
        )
    return found


def starts_dcd(data: mmap.mmap, order: str, mark: int) -> bool:
    """Whether a file starts as a DCD of this byte order and of marks of so many bytes does."""
    long_enough = len(data) >= 84 + 2 * mark
    return long_enough and data[mark : mark + 4] == b"CORD" and mark_at(data, 0, order, mark) == 84


def mark_at(data: mmap.mmap, at: int, order: str, mark: int) -> int:
    """The record mark at an offset, −1 beyond the end of the file."""
    if not 0 <= at <= len(data) - mark:
        return -1
    return int(struct.unpack_from(f"{order}{'i' if mark == 4 else 'q'}", data, at)[0])


def find_frames(data: mmap.mmap, layout: Layout) -> tuple[Integers, Integers, int]:
    """Find the complete frames.

    Returns:
        offset of each frame in the file (frames,), its number (frames,), where incomplete frames count, and
        the bytes of incomplete frames.
    """
    at, frame_number, incomplete = layout.start, 0, 0
    offsets: list[Integers] = [np.zeros(0, dtype=np.int64)]
    numbers: list[Integers] = [np.zeros(0, dtype=np.int64)]
    while at < len(data):
        fitting = (len(data) - at) // layout.frame
        candidates = at + layout.frame * np.arange(fitting, dtype=np.int64)
        bad = np.flatnonzero(~marks_fit(data, layout, candidates))
        good = int(bad[0]) if len(bad) else fitting
        offsets.append(candidates[:good])
        numbers.append(frame_number + np.arange(good, dtype=np.int64))
        at, frame_number = at + good * layout.frame, frame_number + good
        if at >= len(data):
            break
        after = next_frame(data, layout, at + 1)
        incomplete += after - at
        frame_number += max(1, -(-(after - at) // layout.frame))
        at = after
    return np.concatenate(offsets), np.concatenate(numbers), incomplete


def find_free_frames(path: Path, data: mmap.mmap, layout: Layout) -> tuple[Integers, Integers, int]:
    """As `find_frames`, for a file with fixed atoms, whose positions only the first frame holds.

    Raises:
        So3kError: the first frame is incomplete.
    """
    whole = layout.start + layout.frame <= len(data)
    if not (whole and marks_fit(data, layout, np.array([layout.start]))[0]):
        refuse_none(path, ["the first frame, the only one with the fixed atoms, is incomplete"])
    offsets, number, incomplete = find_frames(data, layout.after_first())
    return np.append(layout.start, offsets), np.append(0, number + 1), incomplete


def marks_fit(data: mmap.mmap, layout: Layout, offsets: Integers) -> np.ndarray:
    """At which of these offsets a complete frame starts: all marks around its records are right."""
    raw = np.frombuffer(data, dtype=np.uint8)
    fits = np.ones(len(offsets), dtype=bool)
    at = 0
    for size in layout.records:
        expected = np.frombuffer(struct.pack(f"{layout.order}{'iq'[layout.mark // 8]}", size), dtype=np.uint8)
        for edge in (at, at + layout.mark + size):
            found = raw[offsets[:, None] + (edge + np.arange(layout.mark))]
            fits &= (found == expected).all(axis=1)
        at += 2 * layout.mark + size
    return fits


def next_frame(data: mmap.mmap, layout: Layout, start: int) -> int:
    """The offset of the first complete frame after an offset, or the end of the file.

    The records of x, y and z have the same marks, so that several offsets within one frame can look like its
    start. The start is that from which a whole number of frames reaches the end of the file.
    """
    candidates: list[int] = []
    code = "iq"[layout.mark // 8]
    wanted = struct.pack(f"{layout.order}{code}", layout.records[0])
    for _ in range(MOST_CANDIDATES):
        start = data.find(wanted, start)
        beyond = start < 0 or start + layout.frame > len(data)
        if beyond or (candidates and start >= candidates[0] + layout.frame):
            break
        if marks_fit(data, layout, np.array([start]))[0]:
            candidates.append(start)
        start += 1
    exact = [offset for offset in candidates if (len(data) - offset) % layout.frame == 0]
    return next(iter(exact + candidates), len(data))


def gather(data: mmap.mmap, layout: Layout, offsets: Integers) -> tuple[Array, Array | None]:
    """Positions and cells of the frames at these offsets."""
    raw = np.frombuffer(data, dtype=np.uint8)
    positions = np.empty((len(offsets), layout.atoms, 3))
    boxes = np.empty((len(offsets), 6))
    first = layout.mark + layout.has_cell * (48 + 2 * layout.mark)
    for k, offset in enumerate(offsets.tolist()):
        for axis in range(3):
            at = offset + first + axis * (4 * layout.atoms + 2 * layout.mark)
            with np.errstate(invalid="ignore"):  # damaged bytes may be a signalling NaN
                positions[k, :, axis] = raw[at : at + 4 * layout.atoms].view(f"{layout.order}f4")
        if layout.has_cell:
            at = offset + layout.mark
            boxes[k] = raw[at : at + 48].copy().view(f"{layout.order}f8")
    return positions, unit_cells(boxes) if layout.has_cell else None


def gather_free(data: mmap.mmap, layout: Layout, offsets: Integers) -> tuple[Array, Array | None]:
    """As `gather`, for a file with fixed atoms; the first offset is that of the first frame."""
    assert layout.free is not None
    first, first_cell = gather(data, layout, offsets[:1])
    moved, cells = gather(data, layout.after_first(), offsets[1:])
    positions = np.repeat(first, len(offsets), axis=0)
    positions[1:, layout.free] = moved
    if first_cell is None or cells is None:
        return positions, None
    return positions, np.concatenate([first_cell, cells])


def unit_cells(boxes: Array) -> Array:
    """Cell vectors (frames, 3, 3), Å, from the six numbers of each frame of a DCD.

    They are a, γ, b, β, α, c, with angles in degrees (X-PLOR, mdtraj) or as cosines (CHARMM before version
    25, NAMD, LAMMPS, OpenMM), or the lower triangle of the symmetric matrix of cell vectors (CHARMM from
    version 25 on).

    Args:
        boxes: (frames, 6).
    """
    edges, angles = boxes[:, [0, 2, 5]], boxes[:, [4, 3, 1]]
    if (np.abs(angles) <= 1).all():
        return as_cells(edges, np.degrees(np.arccos(angles)))
    if (boxes < 0).any() or (angles > 180).any():
        return boxes[:, [0, 1, 3, 1, 2, 4, 3, 4, 5]].reshape(-1, 3, 3)
    return as_cells(edges, angles)
