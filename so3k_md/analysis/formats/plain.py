"""Reads XYZ, extended XYZ and PDB of several models, plain or compressed; leaves out incomplete frames."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from so3k_md.analysis.formats.frames import Frames, Lines, as_cells, lost_frames, refuse_none
from so3k_md.analysis.geometry import Array
from so3k_md.errors import So3kError

Model = tuple[Array, Array | None]  # positions (atoms, 3), Å; cell (3, 3), Å


def read_xyz(path: Path, stride: int) -> Frames:
    """Every stride-th complete frame of an XYZ or extended XYZ file, Å.

    Args:
        path: plain or compressed.
        stride: use every stride-th frame.

    Raises:
        So3kError: frames of different numbers of atoms, or no complete frame.
    """
    lines = Lines(path)
    frames: list[tuple[int, Array, Array | None]] = []
    incomplete: list[int] = []
    symbols: tuple[str, ...] = ()
    pbc: tuple[bool, bool, bool] | None = None
    whole = 0
    for frame_number, (count, comment, rows) in enumerate(xyz_blocks(lines)):
        found = xyz_atoms(comment, rows) if rows and len(rows) == count else None
        if found is None:
            incomplete.append(frame_number)
        else:
            names, coordinates = found
            if not symbols:
                symbols, pbc = names, xyz_pbc(comment)
            if len(names) != len(symbols):
                raise So3kError(
                    f"{path}: frame {frame_number} has {len(names)} atoms, the first frame {len(symbols)}: a "
                    "trajectory has the same atoms in all frames; split the file"
                )
            if names != symbols:
                incomplete.append(frame_number)
            else:
                if whole % stride == 0:
                    frames.append((frame_number, coordinates, lattice(comment)))
                whole += 1
    return assemble(path, frames, incomplete, lines, symbols, pbc)


def xyz_blocks(lines: Lines) -> Iterator[tuple[int, str, list[bytes]]]:
    """The stated number of atoms, the comment and the rows of each frame.

    An incomplete frame has another number of rows. A frame starts at a line with a single integer, because
    rows of atoms have more words.
    """
    count, comment = 0, ""
    rows: list[bytes] = []
    state = blocks = 0  # state: 0 before a frame, 1 at its comment, 2 in its rows
    for line in lines:
        words = line.split()
        if state != 1 and len(words) == 1 and words[0].isdigit() and len(words[0]) < 10:
            if state == 2:
                yield count, comment, rows
                blocks += 1
            count, comment, rows, state = int(words[0]), "", [], 1
        elif state == 1:
            comment, state = line.decode("utf-8", errors="replace"), 2
        elif state == 2 and words and len(rows) <= count:
            rows.append(line)
    if state:
        # without a line end the last number may be truncated; a single frame may be written by hand
        truncated = rows and not rows[-1].endswith(b"\n") and (blocks > 0 or lines.broken is not None)
        yield count, comment, rows[:-1] if truncated else rows


def xyz_atoms(comment: str, rows: list[bytes]) -> tuple[tuple[str, ...], Array] | None:
    """Elements and positions of a frame, None if a row is damaged."""
    species, place = columns(comment)
    try:
        words = [row.decode("ascii").split() for row in rows]
        if len({len(row) for row in words}) > 1:
            return None
        symbols = tuple(row[species] for row in words)
        return symbols, np.array([row[place : place + 3] for row in words], dtype=np.float64).reshape(-1, 3)
    except (ValueError, IndexError, UnicodeDecodeError):
        return None


def columns(comment: str) -> tuple[int, int]:
    """The columns of element and x, by `Properties` of extended XYZ, otherwise 0 and 1."""
    found = re.search(r"Properties=\"?([^\s\"]+)", comment)
    fields = found.group(1).split(":") if found else []
    at, first_columns = 0, {}
    for name, width in zip(fields[::3], fields[2::3], strict=False):
        if not (width.isdigit() and len(width) < 4):
            break
        first_columns[name] = at
        at += int(width)
    return first_columns.get("species", 0), first_columns.get("pos", 1)


def lattice(comment: str) -> Array | None:
    """The cell in the comment of extended XYZ, (3, 3), Å; None without a readable one."""
    found = re.search(r"Lattice=\"([^\"]*)\"", comment)
    try:
        values = np.array(found.group(1).split(), dtype=np.float64) if found else np.zeros(0)
    except ValueError:
        return None
    return values.reshape(3, 3) if values.size == 9 else None


def xyz_pbc(comment: str) -> tuple[bool, bool, bool] | None:
    """The periodic axes in the comment of extended XYZ; None if it does not state them."""
    found = re.search(r"pbc=\"([TF]) ([TF]) ([TF])\"", comment)
    return (found[1] == "T", found[2] == "T", found[3] == "T") if found else None


def read_pdb(path: Path, stride: int) -> Frames:
    """Every stride-th complete model of a PDB; of alternative locations only the first is read.

    Args:
        path: plain or compressed.
        stride: use every stride-th model.

    Raises:
        So3kError: no complete model.
    """
    lines = Lines(path)
    frames: list[tuple[int, Array, Array | None]] = []
    incomplete: list[int] = []
    atoms = whole = 0
    for frame_number, (complete, rows, cell) in enumerate(pdb_models(lines)):
        coordinates = pdb_atoms(rows) if complete else None
        atoms = atoms or (0 if coordinates is None else len(coordinates))
        if coordinates is None or len(coordinates) != atoms:
            incomplete.append(frame_number)
            continue
        if whole % stride == 0:
            frames.append((frame_number, coordinates, cell))
        whole += 1
    return assemble(path, frames, incomplete, lines, (), None)


def pdb_models(lines: Lines) -> Iterator[tuple[bool, list[str], Array | None]]:
    """For each model: whether it is complete, its rows of atoms, and the last cell before its end."""
    rows: list[str] = []
    cell: Array | None = None
    opened, models = False, 0
    for raw in lines:
        line = raw.decode("utf-8", errors="replace")
        record = line[:6].rstrip()
        if record == "CRYST1":
            cell = pdb_cell(line)
        elif record in ("ATOM", "HETATM"):
            rows.append(line)
        elif record == "MODEL":
            if rows:
                yield False, rows, cell
            rows, opened = [], True
        elif record in ("ENDMDL", "END") and rows:
            yield True, rows, cell
            rows, opened, models = [], False, models + 1
    if rows:
        yield not (opened or models or lines.broken), rows, cell


def pdb_cell(line: str) -> Array | None:
    """The cell of a CRYST1 line, (3, 3), Å; None if it is damaged."""
    try:
        values = np.array([line[6:15], line[15:24], line[24:33], line[33:40], line[40:47], line[47:54]])
        numbers = values.astype(np.float64)
    except ValueError:
        return None
    cell: Array = as_cells(numbers[None, :3], numbers[None, 3:])[0]
    return cell


def pdb_atoms(rows: list[str]) -> Array | None:
    """Positions of a model (atoms, 3), Å, of alternative locations the first; None if a row is damaged."""
    names: set[str] = set()
    kept = []
    for row in rows:
        name = row[12:16] + row[17:27]
        if row[16:17].strip() and name in names:
            continue
        names.add(name)
        kept.append((row[30:38], row[38:46], row[46:54]))
    try:
        return np.array(kept, dtype=np.float64)
    except ValueError:
        return None


def assemble(
    path: Path,
    frames: list[tuple[int, Array, Array | None]],
    incomplete: list[int],
    lines: Lines,
    elements: tuple[str, ...],
    pbc: tuple[bool, bool, bool] | None,
) -> Frames:
    """The frames of a text file; they have cells only if each frame has one."""
    lost = [lost_frames(incomplete, "incomplete or damaged")] if incomplete else []
    lost += [lines.broken] if lines.broken else []
    if not frames:
        refuse_none(path, lost)
    cells = [cell for _, _, cell in frames if cell is not None]
    return Frames(
        positions=np.stack([coordinates for _, coordinates, _ in frames]),
        cells=np.stack(cells) if len(cells) == len(frames) else None,
        number=np.array([frame_number for frame_number, _, _ in frames], dtype=np.int64),
        pbc=pbc,
        elements=elements,
        lost=tuple(lost),
    )
