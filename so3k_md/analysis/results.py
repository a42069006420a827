"""The results of an analysis, and their form as JSON."""

import math
from typing import Any, NamedTuple

import numpy as np

from so3k_md.analysis.distributions import Distribution, Rdf
from so3k_md.analysis.dynamics import Drift, TemperatureSummary
from so3k_md.analysis.geometry import Array
from so3k_md.analysis.stability import Stability

UNITS = {
    "length": "Å",
    "angle": "degree",
    "energy": "eV",
    "drift": "eV/atom/ps",
    "temperature": "K",
    "time": "ps, or the number of the frame if time_unit is frame",
    "density of bond lengths": "1/Å",
    "density of dihedrals": "1/degree",
    "g(r)": "none",
}


class Source(NamedTuple):
    """The files and settings from which the results were computed."""

    trajectory: str
    topology: str
    log: str | None
    atoms: int
    composition: str
    frames: int
    stride: int
    time_unit: str  # "ps" or "frame"
    time_from: str
    first_time: float
    last_time: float
    periodic: tuple[bool, bool, bool]
    periodic_from: str
    bonds: int
    bonds_from: str
    notes: tuple[str, ...] = ()  # remarks for the reader, one sentence each


class Deviation(NamedTuple):
    """RMSD over time and RMSF per atom, each molecule superposed on itself."""

    molecule: str
    molecules: int  # equal molecules averaged
    time: Array  # (frames,)
    rmsd: Array  # (frames,), Å
    mean: float  # of the RMSD, Å
    last: float  # Å
    rmsf: Array  # (atoms of the molecule,), Å
    atoms: tuple[str, ...]  # element and number in the molecule, from 0


class Energy(NamedTuple):
    """The conserved energy and the potential energy of the log."""

    quantity: str
    rows: str
    time: Array  # (rows,), ps
    change: Array  # conserved energy minus its first value, eV/atom
    drift: Drift
    potential: Array | None  # (rows,), eV
    potential_mean: float | None  # eV
    potential_error: float | None  # eV
    conserved: str = "unknown"  # yes, no or unknown: whether the run conserves this quantity


class Temperature(NamedTuple):
    """The temperature of the log."""

    time: Array | None  # (rows,), ps
    values: Array  # (rows,), K
    summary: TemperatureSummary


class Production(NamedTuple):
    """The part of a run that averages are taken over."""

    row: int  # of the log, its first
    start: float | None  # ps; None where no time is known
    rows: int  # of the log
    source: str


class Analysis(NamedTuple):
    """All results of one trajectory; results that do not apply are None, and `absent` gives the reason."""

    label: str
    source: Source
    stability: Stability
    deviation: Deviation | None
    bonds: tuple[Distribution, ...] | None
    dihedrals: tuple[Distribution, ...] | None
    rdf: tuple[Rdf, ...] | None
    energy: Energy | None
    temperature: Temperature | None
    absent: dict[str, str]
    production: Production | None = None


def as_json(value: Any) -> Any:
    """Named tuples as objects, arrays as lists, and numbers that are not finite as null."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: as_json(part) for name, part in value._asdict().items()}
    if isinstance(value, dict):
        return {name: as_json(part) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [as_json(part) for part in value]
    if isinstance(value, np.ndarray):
        return as_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
