"""Energies and temperature of a run, from the CSV of OpenMM's StateDataReporter or the log of LAMMPS."""

import csv
import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from so3k_md.analysis.geometry import Array, Integers
from so3k_md.errors import So3kError
from so3k_md.units import EV_IN_KJ_MOL, KJ_IN_KCAL


class Thermo(NamedTuple):
    """What a log says over time; a quantity that it lacks is None."""

    program: str
    rows: str  # which rows of the log these are
    steps: Integers | None  # (rows,)
    time: Array | None  # (rows,), ps
    potential: Array | None  # (rows,), eV
    kinetic: Array | None  # (rows,), eV
    conserved: Array | None  # (rows,), eV
    conserved_name: str  # the column or sum that `conserved` is
    temperature: Array | None  # (rows,), K
    timestep_fs: float | None  # what the log says of it
    pbc: tuple[bool, bool, bool] | None  # what the log says of it


class LammpsUnits(NamedTuple):
    """A unit style of LAMMPS."""

    energy_eV: float
    time_fs: float
    default_timestep: float


LAMMPS_UNITS = {
    "metal": LammpsUnits(energy_eV=1.0, time_fs=1000.0, default_timestep=0.001),
    "real": LammpsUnits(energy_eV=KJ_IN_KCAL / EV_IN_KJ_MOL, time_fs=1.0, default_timestep=1.0),
}


def read_log(path: str | Path, timestep_fs: float | None = None) -> Thermo:
    """Read the log of a run; which program wrote it is seen from its content.

    Args:
        path: CSV of OpenMM's StateDataReporter, or log.lammps (units metal or real).
        timestep_fs: time of one step, fs, where the log has steps only.

    Raises:
        So3kError: the file is missing, empty, or holds no table that can be read.
    """
    path = Path(path)
    if not path.is_file():
        raise So3kError(f"log {path} does not exist: give the path of a file")
    text = path.read_text(encoding="utf-8", errors="replace")
    if not text.strip():
        raise So3kError(f"log {path} is empty: the run wrote nothing to it")
    if text.startswith('#"'):
        return read_openmm_csv(path, text, timestep_fs)
    if re.search(r"^\s*LAMMPS \(", text, re.MULTILINE) or re.search(r"^\s*Step\s", text, re.MULTILINE):
        return read_lammps_log(path, text, timestep_fs)
    raise So3kError(
        f"log {path} is of no known kind: give the CSV of OpenMM's StateDataReporter or the log of LAMMPS"
    )


def read_openmm_csv(path: Path, text: str, timestep_fs: float | None) -> Thermo:
    """The columns of a StateDataReporter, kJ/mol to eV."""
    head, *lines = text.splitlines()
    separator = next((mark for mark in (",", "\t", ";") if mark in head), ",")
    names = next(csv.reader([head.lstrip("#")], delimiter=separator))
    rows = [cells for cells in csv.reader(lines, delimiter=separator) if len(cells) == len(names)]
    columns = numeric_columns(path, names, rows)
    potential = scaled(columns.get("Potential Energy (kJ/mole)"), 1 / EV_IN_KJ_MOL)
    kinetic = scaled(columns.get("Kinetic Energy (kJ/mole)"), 1 / EV_IN_KJ_MOL)
    total = scaled(columns.get("Total Energy (kJ/mole)"), 1 / EV_IN_KJ_MOL)
    steps = columns.get("Step")
    time = columns.get("Time (ps)")
    if time is None and steps is not None and timestep_fs is not None:
        time = steps * timestep_fs / 1000
    if total is None and potential is not None and kinetic is not None:
        total = potential + kinetic
    return Thermo(
        program="OpenMM",
        rows=f"all {len(rows)} rows",
        steps=as_integers(steps),
        time=time,
        potential=potential,
        kinetic=kinetic,
        conserved=total,
        conserved_name="total energy",
        temperature=columns.get("Temperature (K)"),
        timestep_fs=timestep_fs,
        pbc=None,
    )


def read_lammps_log(path: Path, text: str, timestep_fs: float | None) -> Thermo:
    """The thermo output of the last dynamics in a log; runs that continue one another are joined.

    Raises:
        So3kError: units other than metal and real, `thermo_style multi` or yaml, per-atom energies, no table.
    """
    style = last_word(r"^\s*units\s+(\w+)\s*(?:#.*)?$", text) or "lj"
    if style not in LAMMPS_UNITS:
        raise So3kError(f"log {path} has units {style}: only metal and real are read (eV and kcal/mol)")
    if re.search(r"^\s*thermo_modify\s.*\bnorm\s+yes", text, re.MULTILINE):
        raise So3kError(f"log {path} has energies per atom: run with `thermo_modify norm no`")
    units = LAMMPS_UNITS[style]
    tables = thermo_tables(text)
    if not tables:
        raise So3kError(
            f"log {path} has no thermo table with a Step column: use `thermo_style custom step temp …`"
        )
    joined = len(tables) - 1
    while joined and tables[joined - 1].continues_as(tables[joined]):
        joined -= 1
    names = tables[-1].names
    rows = tables[joined].rows + [row for table in tables[joined + 1 :] for row in table.rows[1:]]
    columns = numeric_columns(path, names, rows)
    written = last_word(r"^\s*timestep\s+([-+.\deE]+)\s*(?:#.*)?$", text)
    own_fs = (float(written) if written else units.default_timestep) * units.time_fs
    timestep = timestep_fs or own_fs
    steps = columns["Step"]
    time = columns["Time"] * units.time_fs / 1000 if "Time" in columns else steps * timestep / 1000
    if "PotEng" not in columns and {"E_pair", "E_mol"} <= set(columns):
        columns["PotEng"] = columns["E_pair"] + columns["E_mol"]
    potential, kinetic, total, conserved = (
        scaled(columns.get(name), units.energy_eV) for name in ("PotEng", "KinEng", "TotEng", "Econserve")
    )
    kind = "Econserve (energy and what the thermostat took)"
    if conserved is None:
        conserved, kind = total, "total energy"
    flags = (last_word(r"^\s*boundary\s+(\w+\s+\w+\s+\w+)", text) or "p p p").split()
    runs = f"run {len(tables)}" if joined == len(tables) - 1 else f"runs {joined + 1} to {len(tables)}"
    return Thermo(
        program="LAMMPS",
        rows=f"{runs} of {len(tables)} in the log, {len(rows)} rows",
        steps=as_integers(steps),
        time=time,
        potential=potential,
        kinetic=kinetic,
        conserved=conserved,
        conserved_name=kind,
        temperature=columns.get("Temp"),
        timestep_fs=timestep,
        pbc=(flags[0] == "p", flags[1] == "p", flags[2] == "p"),
    )


class Table(NamedTuple):
    """One thermo table."""

    names: list[str]
    rows: list[list[str]]

    def continues_as(self, other: "Table") -> bool:
        """Whether the other run starts from the step at which this one stopped."""
        at = self.names.index("Step")
        return self.names == other.names and bool(self.rows) and self.rows[-1][at] == other.rows[0][at]


def thermo_tables(text: str) -> list[Table]:
    """The tables of one line per step, without those of a minimisation."""
    tables: list[Table] = []
    current: Table | None = None
    command = ""
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] in ("run", "minimize", "rerun"):
            command = words[0]
        if "Step" in words and not any(is_number(word) for word in words) and "=" not in words:
            current = Table(words, [])
            if command != "minimize":
                tables.append(current)
        elif line.startswith("Loop time of"):
            current = None
        elif current is not None and len(words) == len(current.names) and all(map(is_number, words)):
            current.rows.append(words)
    return [table for table in tables if table.rows]


def is_number(word: str) -> bool:
    """Whether a word reads as a number; nan and inf do."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def numeric_columns(path: Path, names: list[str], rows: list[list[str]]) -> dict[str, Array]:
    """The columns of a table by name, without those that hold other things than numbers."""
    if not rows:
        raise So3kError(f"log {path} has a header but no row: the run wrote nothing to it")
    columns = {}
    for k, name in enumerate(names):
        cells = [row[k] for row in rows]
        if all(map(is_number, cells)):
            columns[name] = np.array([float(cell) for cell in cells])
    if not columns:
        raise So3kError(f"log {path} does not parse: no column of it holds numbers; is it cut or edited?")
    return columns


def scaled(values: Array | None, factor: float) -> Array | None:
    """Values in other units, where there are any."""
    return None if values is None else values * factor


def as_integers(steps: Array | None) -> Integers | None:
    """Steps, which logs may write as floats; none of them is beyond a float's exact integers."""
    if steps is None or not all(map(math.isfinite, steps)):
        return None
    return steps.astype(np.int64)


def last_word(pattern: str, text: str) -> str | None:
    """The group of the last match, as the last command of its kind is the one in force."""
    found = re.findall(pattern, text, re.MULTILINE)
    return found[-1] if found else None
