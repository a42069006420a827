"""Reads LAMMPS text dumps: leaves out incomplete frames, and refuses forms that would be misread."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from so3k_md.analysis.formats.frames import Frames, Lines, lost_frames, refuse_none
from so3k_md.analysis.geometry import Array, Integers
from so3k_md.errors import So3kError

COORDINATES = (("xu", "yu", "zu"), ("x", "y", "z"))
START = b"ITEM: TIMESTEP"
HEADER_ITEMS = ("TIMESTEP", "NUMBER OF ATOMS", "BOX BOUNDS", "ATOMS")


class Head(NamedTuple):
    """The header of a frame."""

    step: int
    atoms: int
    columns: tuple[str, ...]
    cell: Array  # (3, 3), Å
    pbc: tuple[bool, bool, bool] | None


def is_dump(path: Path) -> bool:
    """Whether a file is a LAMMPS text dump, by its first line."""
    return next(iter(Lines(path)), b"").startswith(START)


def read_dump(path: Path, stride: int) -> Frames:
    """Every stride-th complete frame of a LAMMPS text dump, atoms in the order of their ids.

    Args:
        path: file of `dump custom` with id, type and xu yu zu or x y z, plain or compressed.
        stride: use every stride-th frame.

    Raises:
        So3kError: scaled coordinates, missing columns, frames of different numbers of atoms, ids that are not
            1…n, or no complete frame.
    """
    lines = Lines(path)
    first: Head | None = None
    elements: tuple[str, ...] = ()
    number, incomplete, steps, cells, positions = [], [], [], [], []
    whole = 0
    for frame_number, (line, block) in enumerate(blocks(lines)):
        head = read_head(f"{path}, line {line}", block)
        if head is None or len(block) != 9 + head.atoms or not block[-1].endswith(b"\n"):
            incomplete.append(frame_number)
            continue
        if first is None:
            first = head
            elements = first_atoms(path, head, block[9:])
        if (head.atoms, head.columns) != (first.atoms, first.columns):
            raise So3kError(
                f"{path}, line {line}: other columns or another number of atoms than in the first frame; "
                "write one dump per run"
            )
        coordinates = read_atoms(head, block[9:])
        if coordinates is None:
            incomplete.append(frame_number)
            continue
        if whole % stride == 0:
            number.append(frame_number)
            steps.append(head.step)
            cells.append(head.cell)
            positions.append(coordinates)
        whole += 1
    lost = [lost_frames(incomplete, "incomplete or damaged")] if incomplete else []
    lost += [lines.broken] if lines.broken else []
    if first is None or not positions:
        refuse_none(path, lost)
    return Frames(
        positions=np.stack(positions),
        cells=np.stack(cells),
        number=np.array(number, dtype=np.int64),
        steps=np.array(steps, dtype=np.int64),
        pbc=first.pbc,
        elements=elements,
        lost=tuple(lost),
    )


def blocks(lines: Lines) -> Iterator[tuple[int, list[bytes]]]:
    """The number of the first line of each frame, and its lines up to the next ITEM: TIMESTEP."""
    block: list[bytes] = []
    at = 1
    for k, line in enumerate(lines, start=1):
        if line.startswith(START):
            if block:
                yield at, block
            block, at = [], k
        block.append(line)
    if block:
        yield at, block


def read_head(where: str, block: list[bytes]) -> Head | None:
    """The header in the first nine lines of a frame, None if it is incomplete or damaged.

    Raises:
        So3kError: the header is complete, but of a form that would be misread.
    """
    lines = [line.decode("utf-8", errors="replace").split() for line in block[:9]]
    items = [" ".join(words[1:]) for words in lines if words[:1] == ["ITEM:"]]
    if {"UNITS", "TIME"} & set(items):
        raise So3kError(
            f"{where}: UNITS and TIME in a header are not read; write it with `dump_modify units no time no`"
        )
    if any("abc origin" in item for item in items):
        raise So3kError(
            f"{where}: general triclinic boxes are not read; use `dump_modify triclinic/general no`"
        )
    if len(items) != 4 or not all(map(str.startswith, items, HEADER_ITEMS)):
        return None
    try:
        step, atoms = int(lines[1][0]), int(lines[3][0])
        bounds = np.array(lines[5:8], dtype=np.float64)
    except (ValueError, IndexError):
        return None
    triclinic = "xy xz yz" in items[2]
    if bounds.shape != (3, 3 if triclinic else 2) or not abs(step) < 2**62:
        return None
    flags = lines[4][-3:]
    periodic = {len(flag) == 2 and set(flag) <= set("psfm") for flag in flags} == {True}
    pbc = (flags[0] == "pp", flags[1] == "pp", flags[2] == "pp") if periodic else None
    columns = tuple(lines[8][2:])
    check_columns(where, columns)
    return Head(step, atoms, columns, box(bounds), pbc)


def box(bounds: Array) -> Array:
    """The cell vectors (rows) from the bounds of a dump; a third column holds the tilts xy, xz, yz."""
    xy, xz, yz = bounds[:, 2] if bounds.shape[1] == 3 else np.zeros(3)
    low = bounds[:, 0] - [min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0]
    high = bounds[:, 1] - [max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0]
    a, b, c = high - low
    return np.array([[a, 0, 0], [xy, b, 0], [xz, yz, c]])


def check_columns(where: str, columns: tuple[str, ...]) -> None:
    """Refuse columns without coordinates in Å, or without id and type of the atoms."""
    if any(set(names) <= set(columns) for names in COORDINATES):
        if not {"id", "type"} <= set(columns):
            raise So3kError(
                f"{where}: columns id and type are missing; write `dump custom … id type xu yu zu`"
            )
        return
    found = tuple(name for name in columns if name in {"xs", "xsu", "ix"}) or columns[:6]
    raise So3kError(
        f"{where}: no coordinates in Å (columns {' '.join(found)} …): scaled positions would be taken for Å; "
        "write `dump custom … id type xu yu zu`"
    )


def first_atoms(path: Path, head: Head, lines: list[bytes]) -> tuple[str, ...]:
    """The elements in the order of the ids, empty without column element; ids other than 1…n are refused."""
    table = split(head, lines)
    order = None if table is None else order_of(head, table)
    if table is None or order is None:
        raise So3kError(
            f"{path}: atom ids are not 1…{head.atoms} in its first frame, or rows are damaged; dump the "
            "group all, and use `reset_atoms id` before"
        )
    if "element" not in head.columns:
        return ()
    symbols = table[order, head.columns.index("element")]
    return tuple(symbol.decode("utf-8", errors="replace") for symbol in symbols)


def split(head: Head, lines: list[bytes]) -> np.ndarray | None:
    """The words of all rows (atoms, columns), None if a row has another number of words than columns."""
    rows = [line.split() for line in lines]
    if any(len(row) != len(head.columns) for row in rows):
        return None
    return np.array(rows, dtype=bytes).reshape(len(rows), len(head.columns))


def order_of(head: Head, table: np.ndarray) -> Integers | None:
    """Row numbers in the order of the ids, None if the ids are not 1…n."""
    try:
        ids = table[:, head.columns.index("id")].astype(np.int64)
    except (ValueError, OverflowError):
        return None
    order = np.argsort(ids, kind="stable")
    return order if np.array_equal(ids[order], np.arange(1, len(ids) + 1)) else None


def read_atoms(head: Head, lines: list[bytes]) -> Array | None:
    """The positions in the order of the ids, (atoms, 3), Å, None if a row is damaged."""
    table = split(head, lines)
    order = None if table is None else order_of(head, table)
    if table is None or order is None:
        return None
    names = next(names for names in COORDINATES if set(names) <= set(head.columns))
    try:
        return table[order][:, [head.columns.index(name) for name in names]].astype(np.float64)
    except ValueError:
        return None
