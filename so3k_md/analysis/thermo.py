"""Reads energies and temperature of a run from the CSV of OpenMM's StateDataReporter or a LAMMPS log."""

import csv
import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from so3k_md.analysis.geometry import Array, Integers
from so3k_md.analysis.times import superseded
from so3k_md.errors import So3kError
from so3k_md.units import EV_IN_KJ_MOL, KJ_IN_KCAL


class Thermo(NamedTuple):
    """The time series of a log; a quantity that it lacks is None."""

    program: str
    rows: str  # which rows of the log these are
    steps: Integers | None  # (rows,)
    time: Array | None  # (rows,), ps
    potential: Array | None  # (rows,), eV
    kinetic: Array | None  # (rows,), eV
    conserved: Array | None  # (rows,), eV
    conserved_name: str  # the column or sum of columns in `conserved`
    temperature: Array | None  # (rows,), K
    timestep_fs: float | None  # as stated in the log
    pbc: tuple[bool, bool, bool] | None  # as stated in the log
    thermostat: bool | None = None  # whether the log names one; None if it names no fixes
    notes: tuple[str, ...] = ()  # rows that are left out, each a sentence


class LammpsUnits(NamedTuple):
    """A unit style of LAMMPS."""

    energy_eV: float
    time_fs: float
    default_timestep: float


OPENMM_COLUMNS = (
    "Step", "Time (ps)", "Potential Energy (kJ/mole)", "Kinetic Energy (kJ/mole)",
    "Total Energy (kJ/mole)", "Temperature (K)",
)  # fmt: skip
AXES = ("Step", "Time", "Time (ps)")
# Fixes of LAMMPS that exchange heat or work, so that the total energy is not conserved.
EXCHANGE = ("nvt", "npt", "nph", "langevin", "temp/", "press/", "gle", "gld", "rigid/n", "brownian")
LAMMPS_UNITS = {
    "metal": LammpsUnits(energy_eV=1.0, time_fs=1000.0, default_timestep=0.001),
    "real": LammpsUnits(energy_eV=KJ_IN_KCAL / EV_IN_KJ_MOL, time_fs=1.0, default_timestep=1.0),
}


def read_log(path: str | Path, timestep_fs: float | None = None) -> Thermo:
    """Read the log of a run; its content shows which program wrote it.

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
    head, *lines = whole_lines(text)
    separator = next((mark for mark in (",", "\t", ";") if mark in head), ",")
    names = next(csv.reader([head.lstrip("#")], delimiter=separator))
    cells = [next(csv.reader([line], delimiter=separator), []) for line in lines]
    numbered = [(k, row) for k, row in enumerate(cells, start=2) if row and lines[k - 2] != head]
    rows, bad = sound_rows(names, numbered, [name for name in names if name in OPENMM_COLUMNS])
    notes = torn_note(path, text) + row_note(path, bad)
    columns = numeric_columns(path, names, rows)
    columns, again = without_superseded(columns, "Step" if "Step" in columns else "Time (ps)")
    notes += again_note(path, again)
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
        rows=f"{len(rows) - again} rows",
        steps=as_integers(steps),
        time=time,
        potential=potential,
        kinetic=kinetic,
        conserved=total,
        conserved_name="total energy",
        temperature=columns.get("Temperature (K)"),
        timestep_fs=timestep_fs,
        pbc=None,
        notes=notes,
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
    tables, bad = thermo_tables(whole_lines(text))
    if not tables:
        raise So3kError(
            f"log {path} has no thermo table with a Step column: use `thermo_style custom step temp …`"
        )
    joined = len(tables) - 1
    while joined and tables[joined - 1].continues_as(tables[joined]):
        joined -= 1
    names = tables[-1].names
    rows = tables[joined].rows + [row for table in tables[joined + 1 :] for row in table.rows[1:]]
    columns, again = without_superseded(numeric_columns(path, names, rows), "Step")
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
    kind = "Econserve (total energy and the energy that the thermostat took)"
    if conserved is None:
        conserved, kind = total, "total energy"
    flags = (last_word(r"^\s*boundary\s+(\w+\s+\w+\s+\w+)", text) or "p p p").split()
    runs = f"run {len(tables)}" if joined == len(tables) - 1 else f"runs {joined + 1} to {len(tables)}"
    return Thermo(
        program="LAMMPS",
        rows=f"{runs} of {len(tables)} in the log, {len(rows) - again} rows",
        steps=as_integers(steps),
        time=time,
        potential=potential,
        kinetic=kinetic,
        conserved=conserved,
        conserved_name=kind,
        temperature=columns.get("Temp"),
        timestep_fs=timestep,
        pbc=(flags[0] == "p", flags[1] == "p", flags[2] == "p"),
        thermostat=has_thermostat(text),
        notes=torn_note(path, text) + row_note(path, bad) + again_note(path, again),
    )


def has_thermostat(text: str) -> bool | None:
    """Whether the fixes in force at the end of a LAMMPS log exchange heat or work; None without fixes."""
    active: dict[str, str] = {}
    for command, name, style in re.findall(
        r"^\s*(fix|unfix)\s+(\S+)(?:[ \t]+\S+[ \t]+(\S+))?", text, re.MULTILINE
    ):
        active.pop(name, None)
        if command == "fix":
            active[name] = style
    return any(style.startswith(EXCHANGE) for style in active.values()) if active else None


def whole_lines(text: str) -> list[str]:
    """The lines of a log without an incomplete last line, in which a number may be truncated."""
    lines = text.splitlines(keepends=True)
    if len(lines) > 1 and not lines[-1].endswith("\n"):
        lines.pop()
    return [line.rstrip("\r\n") for line in lines]


def torn_note(path: Path, text: str) -> tuple[str, ...]:
    """The note on a last line without its end."""
    if text.endswith("\n") or text.count("\n") == 0:
        return ()
    return (f"The last line of {path.name} has no end, so its last number may be truncated: it is left out.",)


def row_note(path: Path, bad: list[int]) -> tuple[str, ...]:
    """The note on rows that do not parse."""
    if not bad:
        return ()
    return (f"{len(bad)} rows of {path.name} do not parse and are left out, the first in line {bad[0]}.",)


def again_note(path: Path, again: int) -> tuple[str, ...]:
    """The note on rows that a continued run wrote again."""
    if not again:
        return ()
    return (f"{again} rows of {path.name} were written again by a continued run: the later ones are used.",)


def sound_rows(
    names: list[str], numbered: list[tuple[int, list[str]]], wanted: list[str]
) -> tuple[list[list[str]], list[int]]:
    """The rows that have all columns, with numbers in those that are wanted; the lines of the others.

    A wanted column without a number in most rows contains something else and is ignored.
    """
    full = [(k, row) for k, row in numbered if len(row) == len(names)]
    places = [names.index(name) for name in wanted]
    places = [at for at in places if 2 * sum(is_number(row[at]) for _, row in full) > len(full)]
    kinds = [names[at] for at in places]
    sound = [(k, row) for k, row in full if is_row(kinds, [row[at] for at in places])]
    kept = {k for k, _ in sound}
    return [row for _, row in sound], [k for k, _ in numbered if k not in kept]


def without_superseded(columns: dict[str, Array], axis: str) -> tuple[dict[str, Array], int]:
    """The columns without rows that a continued run wrote again, and how many these were."""
    if axis not in columns:
        return columns, 0
    again = superseded(columns[axis])
    return {name: values[~again] for name, values in columns.items()}, int(again.sum())


class Table(NamedTuple):
    """One thermo table."""

    names: list[str]
    rows: list[list[str]]

    def continues_as(self, other: "Table") -> bool:
        """Whether the other run starts from the step at which this one stopped."""
        at = self.names.index("Step")
        return self.names == other.names and bool(self.rows) and self.rows[-1][at] == other.rows[0][at]


def thermo_tables(lines: list[str]) -> tuple[list[Table], list[int]]:
    """The tables of one line per step, without those of a minimisation, and the lines of damaged rows."""
    bad: list[int] = []
    tables: list[Table] = []
    current: Table | None = None
    command = ""
    for number, line in enumerate(lines, start=1):
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
        elif current is not None and is_row(current.names, words):
            current.rows.append(words)
        elif current is not None and any(map(is_number, words[:2])):
            bad.append(number)
    return [table for table in tables if table.rows], bad


def is_row(names: list[str], words: list[str]) -> bool:
    """Whether words are numbers, one for each name; steps and times must be finite."""
    if len(words) != len(names) or not all(map(is_number, words)):
        return False
    return all(math.isfinite(float(word)) for name, word in zip(names, words, strict=True) if name in AXES)


def is_number(word: str) -> bool:
    """Whether a word reads as a number; nan and inf do."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def numeric_columns(path: Path, names: list[str], rows: list[list[str]]) -> dict[str, Array]:
    """The columns of a table by name, without those in which a cell is not a number."""
    if not rows:
        raise So3kError(f"log {path} has a header but no row: the run wrote nothing to it")
    columns = {}
    for k, name in enumerate(names):
        cells = [row[k] for row in rows]
        if all(map(is_number, cells)):
            columns[name] = np.array([float(cell) for cell in cells])
    if not columns:
        raise So3kError(
            f"log {path} does not parse: no column holds numbers only; give the log as the run wrote it"
        )
    return columns


def scaled(values: Array | None, factor: float) -> Array | None:
    """Values times a factor of units; None for None."""
    return None if values is None else values * factor


def as_integers(steps: Array | None) -> Integers | None:
    """Steps as integers, which logs may write as floats; None if a step is not finite."""
    if steps is None or not all(map(math.isfinite, steps)):
        return None
    return steps.astype(np.int64)


def last_word(pattern: str, text: str) -> str | None:
    """The group of the last match, because the last command of a kind is the one in force."""
    found = re.findall(pattern, text, re.MULTILINE)
    return found[-1] if found else None
