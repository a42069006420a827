"""Determines from a log where a run is stationary, what it conserves, and when it failed."""

import numpy as np

from so3k_md.analysis.dynamics import equilibration
from so3k_md.analysis.geometry import Array, Integers
from so3k_md.analysis.results import Production
from so3k_md.analysis.stability import Stability
from so3k_md.analysis.thermo import Thermo
from so3k_md.analysis.trajectory import Trajectory
from so3k_md.errors import So3kError

HOTTEST = 50_000.0  # K, 4.3 eV: all bonds break
SPIKE = 0.2  # eV per atom; an energy is a spike if it differs from the median by more than this …
SPIKE_SPREADS = 50.0  # … and by more than this multiple of the median deviation
CONSERVED = (
    0.1  # fluctuation of the total energy over that of the kinetic energy, below which it is conserved …
)
EXCHANGED = 0.5  # … and above which it is not


def settle(thermo: Thermo | None, data: Trajectory, from_ps: float | None) -> Production:
    """The production: from the given time, or from where temperature and potential energy are stationary.

    Args:
        thermo: the log, or None.
        data: the trajectory.
        from_ps: as given, ps.

    Raises:
        So3kError: `from_ps` is not within the run, or no time is known.
    """
    time = thermo.time if thermo and thermo.time is not None else None
    if from_ps is not None:
        axis = data.time if time is None and data.time_unit == "ps" else time
        if axis is None:
            raise So3kError(f"averages from {from_ps:g} ps: no time is known, pass --timestep-fs as well")
        if not from_ps <= axis[-1]:
            raise So3kError(
                f"averages from {from_ps:g} ps: the run ends at {axis[-1]:g} ps, give an earlier time"
            )
        row = 0 if time is None else int(np.searchsorted(time, from_ps))
        if row and time is not None and len(time) - row < 3:
            raise So3kError(f"averages from {from_ps:g} ps: fewer than 3 rows are left, give an earlier time")
        return Production(row, from_ps, 0 if time is None else len(time) - row, "as given")
    if thermo is None:
        return Production(0, None, 0, "the whole trajectory: equilibration cannot be detected without a log")
    series = [x for x in (thermo.temperature, thermo.potential) if x is not None and np.isfinite(x).all()]
    row = max((equilibration(values) for values in series), default=0)
    n_rows = max((len(values) for values in series), default=0)
    start = None if time is None or not len(time) else float(time[row])
    return Production(row, start, n_rows - row, "where temperature and potential energy become stationary")


def settled_frame(data: Trajectory, production: Production) -> int:
    """The first frame of the production; 0 if its time is unknown or fewer than two frames would remain."""
    if production.start is None or data.time_unit != "ps":
        return 0
    first = int(np.searchsorted(data.time, production.start - 1e-9))
    return first if len(data.time) - first >= 2 else 0


def conserves(thermo: Thermo, rows: slice) -> str:
    """Whether a run conserves the energy of its log: yes, no or unknown.

    In NVE the total energy fluctuates far less than the kinetic energy; a canonical one fluctuates more.
    """
    if thermo.conserved_name.startswith("Econserve"):
        return "yes"
    if thermo.thermostat:
        return "no"
    if thermo.kinetic is None or thermo.conserved is None or not 0 < np.ptp(thermo.kinetic[rows]) < np.inf:
        return "unknown"
    energy = thermo.conserved[rows]
    x = np.arange(len(energy))
    residual = energy - np.polyval(np.polyfit(x, energy, 1), x)
    share = float(residual.std() / thermo.kinetic[rows].std())
    return "yes" if share < CONSERVED else "no" if share > EXCHANGED else "unknown"


def watch_log(stability: Stability, thermo: Thermo | None, n_atoms: int) -> Stability:
    """The verdict with the log: energies that are not finite or jump, and temperatures above HOTTEST.

    Args:
        stability: by the frames.
        thermo: the log, or None.
        n_atoms: number of atoms.
    """
    if thermo is None:
        return stability
    faults = [fault for fault in (no_number(thermo), too_hot(thermo), spike(thermo, n_atoms)) if fault]
    if not faults:
        return stability
    row, text = min(faults)
    at = f" (step {thermo.steps[row]})" if thermo.steps is not None else ""
    sentence = f"the log holds {text.format(row=f'{row}{at}')}."
    verdict = f"Unstable: {sentence}" if stability.stable else f"{stability.verdict} Also, {sentence}"
    return stability._replace(stable=False, verdict=verdict)


def no_number(thermo: Thermo) -> tuple[int, str] | None:
    """The first row with an energy or temperature that is not finite."""
    series = [x for x in (thermo.conserved, thermo.potential, thermo.temperature) if x is not None]
    rows = [int(np.flatnonzero(~np.isfinite(x))[0]) for x in series if not np.isfinite(x).all()]
    return (
        (min(rows), "an energy or temperature that is not a finite number, from row {row} on")
        if rows
        else None
    )


def too_hot(thermo: Thermo) -> tuple[int, str] | None:
    """The first row hotter than HOTTEST."""
    if thermo.temperature is None or not len(hot := np.flatnonzero(thermo.temperature > HOTTEST)):
        return None
    return int(hot[0]), f"a temperature of {thermo.temperature[hot[0]]:,.0f} K in its row {{row}}"


def spike(thermo: Thermo, n_atoms: int) -> tuple[int, str] | None:
    """The first row whose energy is far from all others."""
    found: list[tuple[int, str]] = []
    for name, values in (("potential", thermo.potential), ("total", thermo.conserved)):
        if values is not None and len(rows := leaps(values / n_atoms)):
            found.append((int(rows[0]), f"a {name} energy of {values[rows[0]]:.4g} eV in its row {{row}}"))
    return min(found, default=None)


def leaps(values: Array) -> Integers:
    """Rows far from the median of a series, eV per atom."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.zeros(0, dtype=np.int64)
    off = np.abs(values - np.median(finite))
    limit = max(SPIKE, SPIKE_SPREADS * float(np.median(np.abs(finite - np.median(finite)))))
    return np.flatnonzero(off > limit)
