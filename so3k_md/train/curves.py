"""Reads the logs of several trainings, and draws their validation errors in one picture."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from so3k_md.errors import So3kError
from so3k_md.files import atomic
from so3k_md.train.log import Row

LOG = "log.csv"
STYLES = ("-", "--", ":", "-.")  # of lines after ten colours
# Horizontal axis: the column of the log, the factor to the unit of the title, and the title.
AXES = {
    "epoch": ("epoch", 1.0, "epoch"),
    "step": ("step", 1.0, "step"),
    "time": ("seconds", 1 / 60, "time of training / min"),
}
ERRORS = {
    "valid_forces_mae_mev_per_angstrom": "forces / meV/Å",
    "valid_energy_mae_mev": "energy / meV",
    "valid_stress_mae_mev_per_angstrom3": "stress / meV/Å³",
    "valid_dipole_mae_me_angstrom": "dipole / me Å",
    "valid_charges_mae_me": "charges / me",
    "valid_hirshfeld_ratios_mae_1e3": "Hirshfeld ratios / 1/1000",
}


class Curve(NamedTuple):
    """The validations of one training."""

    name: str
    rows: list[Row]

    def best(self, error: str) -> float:
        """The smallest value of a column; NaN if it has none."""
        values = [value for row in self.rows if not math.isnan(value := getattr(row, error))]
        return min(values, default=math.nan)


def read_curve(folder: str | Path, name: str | None = None) -> Curve:
    """The log of a run, also of one that still goes on.

    Args:
        folder: of the run.
        name: in the picture; by default that of the folder.

    Raises:
        So3kError: there is no log of a training, or it has no row yet.
    """
    path = Path(folder) / LOG
    if not path.is_file():
        raise So3kError(f"{folder}: has no {LOG}; give the folder of a training")
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        read = list(csv.DictReader(file))
    try:
        rows = [_row(row) for row in read]
    except (TypeError, ValueError, KeyError):
        raise So3kError(f"{path}: is not the log of a training; give the folder of one") from None
    if not rows:
        raise So3kError(f"{path}: has no row yet; wait for the first validation")
    return Curve(Path(folder).resolve().name if name is None else name, rows)


def errors_in(curves: Sequence[Curve]) -> list[str]:
    """The columns of ERRORS in which a curve has a number."""
    return [error for error in ERRORS if any(not math.isnan(curve.best(error)) for curve in curves)]


def table_of_curves(curves: Sequence[Curve]) -> str:
    """Length and smallest validation errors of each run as text."""
    errors = errors_in(curves)
    width = max(len(curve.name) for curve in curves) + 2
    titles = "".join(f"  {ERRORS[error]:>16}" for error in errors)
    lines = [f"{'run':<{width}}{'epochs':>8}{'min':>10}{titles}   (smallest validation MAE)"]
    for curve in curves:
        last = curve.rows[-1]
        cells = "".join(f"  {_text(curve.best(error)):>16}" for error in errors)
        lines.append(f"{curve.name:<{width}}{last.epoch:>8}{last.seconds / 60:>10.1f}{cells}")
    return "\n".join(lines)


def draw_curves(path: str | Path, curves: Sequence[Curve], axis: str = "epoch") -> None:
    """Draw the validation errors of all runs, one panel for each quantity, on logarithmic scales.

    Args:
        path: the picture, written atomically; its ending says the format.
        curves: of the runs.
        axis: epoch, step or time.
    """
    column, unit, title = AXES[axis]
    errors = errors_in(curves)
    n_lines = math.ceil(len(curves) / len(errors))  # of the legend
    figure = Figure(figsize=(4.2 * len(errors), 3.4 + 0.22 * n_lines), layout="constrained")
    panels = figure.subplots(1, len(errors), squeeze=False)[0]
    for panel, error in zip(panels, errors, strict=True):
        for k, curve in enumerate(curves):
            x = [unit * getattr(row, column) for row in curve.rows]
            y = [getattr(row, error) for row in curve.rows]
            marker = "." if len(x) < 3 else ""
            panel.semilogy(x, y, color=f"C{k % 10}", linestyle=STYLES[k // 10 % 4], marker=marker)
        panel.set(xlabel=title, ylabel=f"validation MAE of {ERRORS[error]}")
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.grid(alpha=0.3)
    names = [f"{curve.name} (best {_text(curve.best(errors[0]))} {_unit(errors[0])})" for curve in curves]
    place: dict[str, Any] = {
        "loc": "outside upper left",
        "ncols": len(errors),
        "frameon": False,
        "fontsize": "small",
    }
    figure.legend(panels[0].lines, names, **place)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _row(cells: dict[str, str]) -> Row:
    """A row of the log from its text."""
    rest = {name: float(text) for name, text in cells.items() if name not in ("epoch", "step")}
    return Row(int(cells["epoch"]), int(cells["step"]), **rest)


def _unit(error: str) -> str:
    return ERRORS[error].split(" / ", 1)[1]


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}" if value < 100 else f"{value:.0f}"
