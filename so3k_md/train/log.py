"""Writes the log of a training: a table, a picture, and records for TensorBoard."""

import csv
import math
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from so3k_md.files import atomic

# Columns that only models trained on charges have.
CHARGE_ERRORS = ("valid_dipole_mae_me_angstrom", "valid_charges_mae_me", "valid_hirshfeld_ratios_mae_1e3")


class Row(NamedTuple):
    """One row of the table: a validation of the averaged weights, errors in meV and Å."""

    epoch: int
    step: int
    learning_rate: float
    train_loss: float
    valid_loss: float
    valid_energy_mae_mev: float
    valid_forces_mae_mev_per_angstrom: float
    valid_stress_mae_mev_per_angstrom3: float
    seconds: float
    valid_dipole_mae_me_angstrom: float = math.nan
    valid_charges_mae_me: float = math.nan
    valid_hirshfeld_ratios_mae_1e3: float = math.nan


class Log:
    """All rows so far. The checkpoint contains them, so that a resumed run writes the same table."""

    def __init__(self, folder: Path | None, rows: list[list[float]], tensorboard: bool):
        self.folder = folder  # None for a process that writes no files
        self.rows = [Row(int(row[0]), int(row[1]), *row[2:]) for row in rows]
        self.writer: Any = None
        if tensorboard and folder is not None:
            from torch.utils.tensorboard import SummaryWriter  # imported only if it is used

            # a killed process may have written records after its last checkpoint
            purge = self.rows[-1].step + 1 if self.rows else 0
            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def add(self, row: Row) -> None:
        """Append a row and rewrite the table."""
        self.rows.append(row)
        if self.folder is None:
            return
        with atomic(self.folder / "log.csv") as temporary, open(temporary, "w", newline="") as file:
            writer = csv.writer(file)
            shown = [name for name in Row._fields if name not in CHARGE_ERRORS or self.has(name)]
            writer.writerow(shown)
            writer.writerows([getattr(row, name) for name in shown] for row in self.rows)
        if self.writer is not None:
            for name, value in row._asdict().items():
                if value == value:
                    self.writer.add_scalar(name, value, row.step)
            self.writer.flush()

    def has(self, name: str) -> bool:
        """Whether a row has a number under this name."""
        return any(not math.isnan(getattr(row, name)) for row in self.rows)

    def draw(self) -> None:
        """The learning curves as a picture."""
        if self.folder is None:
            return
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        epochs = [row.epoch for row in self.rows]
        left.semilogy(epochs, [row.train_loss for row in self.rows], label="training")
        left.semilogy(epochs, [row.valid_loss for row in self.rows], label="validation")
        left.set(xlabel="epoch", ylabel="loss (eV², eV²/Å²)")
        curves = {
            "forces (meV/Å)": [row.valid_forces_mae_mev_per_angstrom for row in self.rows],
            "energy (meV)": [row.valid_energy_mae_mev for row in self.rows],
            "stress (meV/Å³)": [row.valid_stress_mae_mev_per_angstrom3 for row in self.rows],
        }
        for name, values in curves.items():
            if values[-1] == values[-1]:  # nan if the data have no such label
                right.semilogy(epochs, values, label=name)
        right.set(xlabel="epoch", ylabel="validation MAE")
        for axes in (left, right):
            axes.legend(frameon=False)
            axes.grid(alpha=0.3, which="both")
        with atomic(self.folder / "learning_curve.png") as temporary:
            figure.savefig(temporary, dpi=150)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        """Release the TensorBoard file."""
        if self.writer is not None:
            self.writer.close()
