"""What mdtraj does not tell of a trajectory file: steps, periodic directions, whether it is whole."""

import itertools
import struct
from pathlib import Path
from typing import NamedTuple

from so3k_md.errors import So3kError

COORDINATES = (("xu", "yu", "zu"), ("x", "y", "z"))
HEADER_LINES = 9


class Header(NamedTuple):
    """The frames that a file claims to hold."""

    frames: int
    steps: tuple[int, ...]  # time step of each frame; empty if the file does not say
    pbc: tuple[bool, bool, bool] | None = None  # None: the file does not say
    interval_ps: float | None = None  # time between steps that the file itself states
    elements: tuple[str, ...] = ()  # of the first frame, in the order of the ids; empty if not written


def is_dump(path: Path) -> bool:
    """Whether the file is a LAMMPS text dump, by its first words."""
    with open(path, "rb") as file:
        return file.read(14) == b"ITEM: TIMESTEP"


def read_dump_header(path: Path) -> Header:
    """Walk through a LAMMPS text dump, refusing what mdtraj would read wrongly or drop in silence.

    Raises:
        So3kError: scaled coordinates, missing columns, another number of atoms, ids that are not 1…n, a cut.
    """
    steps: list[int] = []
    first: list[str] = []
    elements: tuple[str, ...] = ()
    n_lines = 0
    with open(path, encoding="utf-8", errors="replace") as file:
        while header := list(itertools.islice(file, HEADER_LINES)):
            check_dump_header(path, header, steps, n_lines)
            n_atoms = int(header[3])
            atoms = list(itertools.islice(file, n_atoms))
            if len(atoms) < n_atoms or not atoms[-1].endswith("\n"):
                refuse_cut_dump(path, len(steps), n_lines)
            if not steps:
                first = header
                elements = check_dump_atoms(path, header[8].split()[2:], atoms)
            elif header[3] != first[3] or header[8] != first[8]:
                raise So3kError(
                    f"{path}, line {n_lines + 1}: other atoms or columns than in the first frame; "
                    "write one dump per run"
                )
            steps.append(int(header[1]))
            n_lines += HEADER_LINES + n_atoms
    flags = first[4].split()[-3:] if first else []
    return Header(len(steps), tuple(steps), pbc=dump_pbc(flags), elements=elements)


def dump_pbc(flags: list[str]) -> tuple[bool, bool, bool] | None:
    """Which directions are periodic, from the words after BOX BOUNDS (`pp`, `ff`, `ss`, …)."""
    if len(flags) != 3:
        return None
    return (flags[0] == "pp", flags[1] == "pp", flags[2] == "pp")


def check_dump_header(path: Path, header: list[str], steps: list[int], n_lines: int) -> None:
    """Refuse a header that mdtraj cannot read or would misread."""
    if len(header) < HEADER_LINES or not header[-1].endswith("\n"):
        refuse_cut_dump(path, len(steps), n_lines)
    where = f"{path}, line {n_lines + 1}"
    if not (header[0].startswith("ITEM: TIMESTEP") and header[4].startswith("ITEM: BOX BOUNDS")):
        raise So3kError(
            f"{where}: not the plain header of a `dump custom`; write it with `dump_modify units no time no`"
        )
    if "abc origin" in header[4]:
        raise So3kError(
            f"{where}: general triclinic boxes are not read; use `dump_modify triclinic/general no`"
        )
    columns = header[8].split()[2:]
    if any(set(names) <= set(columns) for names in COORDINATES):
        if not {"id", "type"} <= set(columns):
            raise So3kError(
                f"{where}: columns id and type are missing; write `dump custom … id type xu yu zu`"
            )
        return
    found = [name for name in ("xs", "xsu", "ix") if name in columns] or columns[:6]
    raise So3kError(
        f"{where}: no coordinates in Å (columns {' '.join(found)} …): scaled positions would be taken for Å; "
        "write `dump custom … id type xu yu zu`"
    )


def check_dump_atoms(path: Path, columns: list[str], atoms: list[str]) -> tuple[str, ...]:
    """Refuse ids other than 1…n, and return the elements in the order of the ids if the dump has them."""
    rows = [line.split() for line in atoms]
    at = columns.index("id")
    ids = [int(row[at]) for row in rows]
    if sorted(ids) != list(range(1, len(ids) + 1)):
        raise So3kError(
            f"{path}: atom ids are not 1…{len(ids)}; dump the group all, and use `reset_atoms id` before"
        )
    if "element" not in columns:
        return ()
    symbol = columns.index("element")
    return tuple(row[symbol] for _, row in sorted(zip(ids, rows, strict=True)))


def refuse_cut_dump(path: Path, n_whole: int, n_lines: int) -> None:
    """A dump that ends inside a frame: say how to keep the whole ones."""
    remedy = f"keep the {n_whole} whole frames with `head -n {n_lines}`" if n_whole else "run again"
    raise So3kError(f"{path} is truncated: it ends inside frame {n_whole}; {remedy}")


def read_dcd_header(path: Path) -> Header:
    """The first record of a DCD: number of frames, first step, steps between frames, and OpenMM's time step.

    Raises:
        So3kError: not a DCD file.
    """
    with open(path, "rb") as file:
        raw = file.read(264)
    if len(raw) < 264 or raw[4:8] != b"CORD":
        raise So3kError(f"{path} is not a DCD file, or it is cut in its header: write the trajectory again")
    order = "<" if raw[:4] == struct.pack("<i", 84) else ">"
    frames, start, every = struct.unpack(f"{order}3i", raw[8:20])
    (delta,) = struct.unpack(f"{order}f", raw[44:48])
    # LAMMPS writes its time step in the units of the run, which the file does not name; OpenMM in CHARMM's.
    charmm_time_ps = 0.04888821
    interval_ps = delta * charmm_time_ps if b"Created by OpenMM" in raw and delta > 0 else None
    return Header(frames, tuple(start + every * k for k in range(frames)), interval_ps=interval_ps)
