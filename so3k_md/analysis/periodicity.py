"""Determines the periodic axes of a trajectory, because a file may contain a cell that is not its own."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from so3k_md.analysis.bonds import make_whole
from so3k_md.analysis.formats.frames import Frames
from so3k_md.analysis.geometry import FARTHEST, NOT_PERIODIC, Array, Integers, sound_frames
from so3k_md.analysis.topology import topology_has_cell
from so3k_md.errors import So3kError
from so3k_md.structure.bonds import trees
from so3k_md.structure.cells import cell_fault, density, overlap_through_walls

Flags3 = tuple[bool, bool, bool]
DEFAULT_EDGE = 20.0  # Å, of the cube that OpenMM gives to a system without a box
LEAST_DENSITY = 0.3  # g/cm³; at a higher density that cube is the box of a liquid
SAMPLES = 5  # frames that are checked
MOVED = 0.01  # Å


class Periodicity(NamedTuple):
    """The periodic axes, and their source."""

    pbc: Flags3
    reason: str
    doubted: bool = False  # whether the file contains a cell that is not used


def stated(
    path: Path, frames: Frames, numbers: Integers, periodic: bool | None, logged: Flags3 | None
) -> Periodicity:
    """The periodic axes by the files, after a check of the first cell.

    Args:
        path: of the trajectory, for messages.
        frames: of it.
        numbers: atomic numbers (atoms,).
        periodic: value from the user.
        logged: value from the log.

    Raises:
        So3kError: the user states a periodic run, but there is no cell.
    """
    if frames.cells is None or not is_cell(frames.cells[:1])[0]:
        if periodic:
            raise So3kError(
                f"{path} holds no cell: it cannot be analysed as periodic; leave out --periodic yes"
            )
        return Periodicity(NOT_PERIODIC, "the file holds no cell")
    if periodic is not None:
        return Periodicity((periodic, periodic, periodic), "as asked")
    flags = frames.pbc if frames.pbc is not None else logged
    pbc = (True, True, True) if flags is None else flags
    reason = "the file holds a cell" if flags is None else "boundary flags of the run"
    if fault := cell_fault(numbers, frames.cells[0], pbc):
        return Periodicity(NOT_PERIODIC, f"the cell in the file {fault}", doubted=True)
    return Periodicity(pbc, reason)


def is_cell(cells: Array) -> np.ndarray:
    """Which cells are finite and have a volume, (frames,)."""
    usable = np.abs(cells) < FARTHEST
    volumes = np.abs(np.linalg.det(np.where(usable, cells, 0.0)))
    found: np.ndarray = usable.all(axis=(1, 2)) & (volumes > 1e-3)
    return found


def judged(
    by_files: Periodicity, frames: Frames, topology: Path | None, numbers: Integers, bonds: Integers
) -> Periodicity:
    """Whether the cell in the file acted on the atoms.

    OpenMM passes a cube of 2 nm to its reporters for systems without a box, and topologies may contain the
    cell of a crystal. Atoms of an open system pass through images of others. If they overlap with images in
    all checked frames and move in between, or in any frame with that cube, the system has no cell. A pair
    that overlaps in some frames of another cell is an event of the run.

    Args:
        by_files: result of `stated`.
        frames: of the trajectory.
        topology: file of the topology, or None.
        numbers: atomic numbers (atoms,).
        bonds: (bonds, 2).
    """
    cells, flagged = frames.cells, frames.pbc is not None or by_files.reason != "the file holds a cell"
    if cells is None or not any(by_files.pbc) or flagged:
        return by_files
    cube = np.allclose(cells, DEFAULT_EDGE * np.eye(3), atol=1e-3)
    constant = np.allclose(cells, cells[0], atol=1e-3)
    usable = np.flatnonzero(sound_frames(frames.positions) & is_cell(cells))
    chosen = usable[np.unique(np.linspace(0, len(usable) - 1, min(SAMPLES, len(usable))).astype(int))]
    if not constant or not len(chosen):
        return by_files
    parent, _ = trees(len(numbers), bonds)
    through = [overlap_clause(frames.positions[k], cells[k], numbers, parent) for k in chosen]
    if cube and any(through):
        return open_because(f"the cell is the 2 nm default of OpenMM, and {next(filter(None, through))}")
    moved = np.ptp(frames.positions[chosen], axis=0).max() > MOVED
    if len(chosen) > 1 and all(through) and moved:
        return open_because(
            f"the cell in the file does not act on the atoms: {through[0]} in all checked frames"
        )
    if cube and not topology_has_cell(topology) and density(numbers, cells[0]) < LEAST_DENSITY:
        return open_because("the cell is the 2 nm default that OpenMM writes for systems without a box")
    return by_files


def open_because(reason: str) -> Periodicity:
    """The result for an open system whose file contains a cell."""
    return Periodicity(NOT_PERIODIC, reason, doubted=True)


def overlap_clause(positions: Array, cell: Array, numbers: Integers, parent: Integers) -> str | None:
    """A clause that names the closest two atoms of a frame that overlap only across the cell's boundary."""
    pbc = (True, True, True)
    whole = make_whole(positions[None], cell[None], pbc, parent)[0]
    found = overlap_through_walls(numbers, whole, cell, pbc)
    if found is None:
        return None
    return f"atoms {found.first} and {found.second} overlap across its boundary at {found.distance:.2f} Å"
