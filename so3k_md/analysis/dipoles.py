"""Reads tables of the dipole along a run, which OpenMM and LAMMPS write."""

import csv
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from so3k_md.analysis.geometry import Array
from so3k_md.analysis.thermo import torn_note, whole_lines
from so3k_md.errors import So3kError, So3kWarning

COLUMNS = tuple(f"Dipole {axis} (e*A)" for axis in "XYZ")
TIME = "Time (ps)"
UNEVEN = 1e-3  # largest deviation of an interval from the median, as a share of it


class Dipoles(NamedTuple):
    """The dipole of a system at equal intervals."""

    source: str
    interval: float  # ps
    dipole: Array  # (rows, 3), e Å


def read_dipoles(path: str | Path, timestep_fs: float | None = None) -> Dipoles:
    """Read a table of `So3kReporter` (CSV) or of LAMMPS (fix ave/time), or an npz of `time_ps` and `dipole`.

    Args:
        path: .csv, .npz, or another name for a table of LAMMPS, whose last three columns are the dipole.
        timestep_fs: time step, fs, for a table of LAMMPS, which holds steps.

    Raises:
        So3kError: no such file, another form, or rows that are not finite and evenly spaced.
    """
    path = Path(path)
    if not path.is_file():
        raise So3kError(f"there is no file {path}: give the table of dipoles that a run has written")
    readers = {".csv": _csv, ".npz": _npz}
    try:
        if reader := readers.get(path.suffix.lower()):
            time, dipole = reader(path)
        else:
            time, dipole = _lammps(path, timestep_fs)
    except So3kError:
        raise
    except (ValueError, TypeError, LookupError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise So3kError(f"{path} is not a table of dipoles ({error}): give one of a run") from error
    if dipole.ndim != 2 or dipole.shape[1:] != (3,) or time.shape != dipole.shape[:1]:
        raise So3kError(
            f"{path}: times {time.shape} and dipoles {dipole.shape} do not fit: (rows,) and (rows, 3)"
        )
    if not (np.isfinite(time).all() and np.isfinite(dipole).all()):
        raise So3kError(
            f"{path} holds numbers that are not finite: remove the rows from the first such number on"
        )
    return Dipoles(str(path), _interval(time, path), dipole)


def _interval(time: Array, path: Path) -> float:
    """The one interval between all rows, ps."""
    steps = np.diff(time)
    if not len(steps):
        raise So3kError(f"{path} has {len(time)} rows: a spectrum needs a time series; run longer")
    usual = float(np.median(steps))
    wrong = np.flatnonzero(np.abs(steps - usual) > UNEVEN * abs(usual))
    if usual <= 0 or len(wrong):
        first = int(wrong[0]) if len(wrong) else 0
        raise So3kError(
            f"{path}: {steps[first]:g} ps between rows {first} and {first + 1}, mostly {usual:g} ps: rows "
            "must be evenly spaced; remove rows that runs wrote again"
        )
    return float((time[-1] - time[0]) / len(steps))


def _csv(path: Path) -> tuple[Array, Array]:
    rows = list(csv.reader(_lines(path)))
    names = [name.strip('#" ') for name in rows[0]] if rows else []
    missing = [name for name in (TIME, *COLUMNS) if name not in names]
    if missing:
        raise So3kError(f"{path} has no column {missing[0]!r}: give a table of So3kReporter")
    table = np.array([[float(row[names.index(name)]) for name in (TIME, *COLUMNS)] for row in rows[1:]])
    table = table.reshape(-1, 4)
    return table[:, 0], table[:, 1:]


def _lines(path: Path) -> list[str]:
    """The lines of a table; an incomplete last line is left out with a warning."""
    text = path.read_text(encoding="utf-8")
    for note in torn_note(path, text):
        warnings.warn(note, So3kWarning, stacklevel=4)
    return whole_lines(text)


def _npz(path: Path) -> tuple[Array, Array]:
    with np.load(path, allow_pickle=False) as file:
        return np.asarray(file["time_ps"], dtype=float), np.asarray(file["dipole"], dtype=float)


def _lammps(path: Path, timestep_fs: float | None) -> tuple[Array, Array]:
    if timestep_fs is None:
        raise So3kError(f"{path} holds steps, not times: give the time step, such as --timestep-fs 0.5")
    table = np.loadtxt(_lines(path), ndmin=2)
    if table.shape[1] < 4:
        raise So3kError(
            f"{path} has {table.shape[1]} columns: the step and the three components of the dipole are needed"
        )
    return table[:, 0] * timestep_fs / 1000.0, table[:, -3:]
