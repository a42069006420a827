"""The result of a trajectory reader, and the lines of text files that may be compressed or truncated."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from so3k_md.analysis.geometry import Array, Integers
from so3k_md.errors import So3kError

PACKED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
LONGEST_LINE = 1_000_000  # bytes


class Frames(NamedTuple):
    """The complete frames of a file."""

    positions: Array  # (frames, atoms, 3), Å
    cells: Array | None  # (frames, 3, 3), rows are the cell vectors, Å
    number: Integers  # (frames,): number of each frame in the file, from 0; unreadable frames count
    time: Array | None = None  # (frames,), ps
    steps: Integers | None = None  # (frames,), step of the engine
    interval_ps: float | None = None  # time of one step, if the file states it
    pbc: tuple[bool, bool, bool] | None = None  # None: the file does not say
    elements: tuple[str, ...] = ()  # of the first frame; empty if the file does not name them
    lost: tuple[str, ...] = ()  # what could not be read, each a clause
    topology: str | None = None  # JSON of mdtraj, if the file holds a topology


def kind_of(path: Path) -> str:
    """The suffix of a file in lower case, without that of a compression: .xyz for run.xyz.gz."""
    names = [suffix.lower() for suffix in path.suffixes]
    if names and names[-1] in PACKED:
        names.pop()
    return names[-1] if names else ""


class Lines:
    """The lines of a text file, up to where it can be read.

    Args:
        path: a plain file, or a compressed one: .gz, .bz2 or .xz.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken: str | None = None  # why the compressed data cannot be read to their end

    def __iter__(self) -> Iterator[bytes]:
        opener = PACKED.get(self.path.suffix.lower(), open)
        try:
            with opener(self.path, "rb") as file:
                while line := file.readline(LONGEST_LINE):
                    yield line
        except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, ValueError) as error:
            self.broken = f"its compressed data are truncated or damaged ({error})"


def lost_frames(numbers: Sequence[int], what: str) -> str:
    """A clause that names the frames that could not be read."""
    shown = ", ".join(str(number) for number in numbers[:5]) + (", …" if len(numbers) > 5 else "")
    return f"frame {shown} is {what}" if len(numbers) == 1 else f"{len(numbers)} frames ({shown}) are {what}"


def refuse_none(path: Path, lost: Sequence[str]) -> NoReturn:
    """Refuse a file without a complete frame."""
    reason = f" ({'; '.join(lost)})" if lost else ""
    raise So3kError(
        f"{path} holds no complete frame: it is truncated, damaged or of another kind{reason}; give another "
        "file, or run the simulation again"
    )


def as_cells(lengths: Array, angles: Array) -> Array:
    """Cell vectors from lengths and angles, a along x, b in the xy plane; NaN where no such cell exists.

    Args:
        lengths: a, b, c, (frames, 3), Å.
        angles: α, β, γ, (frames, 3), degrees.
    """
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        cosines = np.cos(np.radians(angles))
        cosines = np.where(np.abs(cosines) < 1e-9, 0.0, cosines)
        alpha, beta, gamma = cosines.T
        sine = np.sqrt(1 - gamma**2)
        y = (alpha - beta * gamma) / sine
        z = np.sqrt(1 - beta**2 - y**2)
    cells = np.zeros((len(lengths), 3, 3))
    cells[:, 0, 0] = 1
    cells[:, 1, 0], cells[:, 1, 1] = gamma, sine
    cells[:, 2, 0], cells[:, 2, 1], cells[:, 2, 2] = beta, y, z
    return cells * lengths[:, :, None]
