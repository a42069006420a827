"""Determines the time of each frame or row, and the frames or rows that a continued run wrote again."""

import numpy as np

from so3k_md.analysis.formats.frames import Frames
from so3k_md.analysis.geometry import Array, Flags, Integers

Axis = tuple[Array, str, str]  # the values, their unit, their source
UNKNOWN = "unknown: pass --timestep-fs, --frame-interval-ps or the --log of LAMMPS"


def time_axis(frames: Frames, timestep_fs: float | None, frame_interval_ps: float | None) -> Axis:
    """The time of each frame, its unit and its source; frame numbers if the time is unknown."""
    number = frames.number.astype(np.float64)
    if frame_interval_ps is not None:
        return number * frame_interval_ps, "ps", f"{frame_interval_ps:g} ps between frames, as given"
    if frames.steps is not None and timestep_fs is not None:
        return frames.steps * timestep_fs / 1000, "ps", f"steps in the file × {timestep_fs:g} fs"
    if frames.steps is not None and frames.interval_ps is not None:
        # The header holds the time step in single precision; no run needs more digits than 1e-4 fs.
        timestep = round(frames.interval_ps * 1000, 4)
        source = f"steps in the file × {timestep:g} fs, both written by OpenMM"
        return frames.steps * timestep / 1000, "ps", source
    if frames.time is not None:
        return frames.time, "ps", "written in the file"
    return number, "frame", UNKNOWN


def rising_axis(frames: Frames, timestep_fs: float | None, frame_interval_ps: float | None) -> Axis:
    """As `time_axis`; frame numbers if the times in the file do not increase from frame to frame."""
    found = time_axis(frames, timestep_fs, frame_interval_ps)
    steps = np.diff(found[0])
    if (np.isfinite(steps) & (steps > 0)).all():
        return found
    first = int(np.flatnonzero(~(steps > 0))[0])
    reason = f"unknown, because {found[0][first + 1]:g} ps follows {found[0][first]:g} ps in the file"
    return frames.number.astype(np.float64), "frame", f"{reason}: {UNKNOWN[9:]}"


def superseded(values: Array | Integers) -> Flags:
    """Which rows a continued run wrote again, (rows,): later rows have the same or an earlier time.

    A series that returns to its first time or before it is a second run after the first; no row is then
    written again.

    Args:
        values: time or step of each row (rows,).
    """
    if len(values) < 2 or not np.isfinite(values).all() or (np.diff(values) > 0).all():
        return np.zeros(len(values), dtype=bool)
    if values[1:].min() <= values[0]:
        return np.zeros(len(values), dtype=bool)
    later = np.minimum.accumulate(values[::-1])[::-1]
    return np.append(values[:-1] >= later[1:], False)
