"""Frames: labelled structures in eV and Å, with all checks that do not depend on the file format."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from so3k_md.data.units import Units
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.structure.cells import check_cell
from so3k_md.structure.charges import GivenChargeState

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EV_ANGSTROM = Units()
LABELS = ("energy", "forces", "stress")
CHARGE_LABELS = ("dipole", "charges", "hirshfeld_ratios")  # of models with charges; read under given keys
MOST_UNEVEN = 1e-3  # eV/Å³, largest difference of σ_ab and σ_ba, above the noise of calculations
LARGEST = 1e10  # eV and Å; a larger label is a fill value
NO_CELL = 'correct it, set length_unit, or, of a molecule in vacuum, set pbc to "F F F" or leave the cell out'


class FileKeys(NamedTuple):
    """The keys of a frame as its file has them, in the units of the file; read on demand only."""

    values: Mapping[str, Any] = {}  # of the frame
    arrays: Mapping[str, NDArray[Any]] = {}  # of its atoms, (n, …)


class Frame(NamedTuple):
    """A structure and its reference labels; a missing label is None."""

    numbers: Ints  # (n,), atomic numbers
    positions: Floats  # (n, 3), Å
    cell: Floats | None  # (3, 3), rows are lattice vectors, Å
    pbc: NDArray[np.bool_]  # (3,)
    energy: float | None  # eV
    forces: Floats | None  # (n, 3), eV/Å
    stress: Floats | None  # (3, 3), eV/Å³, positive = tension (ASE); only where periodic
    place: int  # index in the file, from 0
    source: str  # the file
    group: NDArray[Any] | None = None  # (n,), equal within a molecule; checked if a model uses it
    charge_state: GivenChargeState = (
        GivenChargeState()
    )  # charge, spin and fragments; checked if a model uses them
    dipole: Floats | None = None  # (3,), Σ q r about the origin of the positions, e Å; only of open frames
    charges: Floats | None = None  # (n,), e
    hirshfeld_ratios: Floats | None = None  # (n,), volumes over those of free atoms
    kept: FileKeys = FileKeys()  # of frames that are read to be written again

    @property
    def where(self) -> str:
        """File and frame, for messages."""
        return f"{self.source}, frame {self.place}"

    @property
    def volume(self) -> float | None:
        """Volume of the cell, Å³; None if no stress is defined."""
        if self.cell is None or not self.pbc.any():
            return None
        return float(abs(np.linalg.det(self.cell))) or None


class Record(NamedTuple):
    """The data of one frame as read, in the units of the file and not yet checked."""

    numbers: Any
    positions: Any
    cell: Any
    pbc: Any
    labels: dict[str, Any]  # energy, forces, stress or virial, CHARGE_LABELS; absent if the file has none
    group: Any = None
    charge_state: GivenChargeState = GivenChargeState()
    keys: Mapping[str, str] = {}  # of the labels, in the file
    kept: FileKeys = FileKeys()


def to_frame(record: Record, place: int, source: str, units: Units = EV_ANGSTROM) -> Frame:
    """Check a record and convert it, once, to eV and Å.

    Args:
        record: as read.
        place: index in the file, from 0.
        source: the file.
        units: of the file.

    Raises:
        So3kError: names file, frame, key and remedy.
    """
    where = f"{source}, frame {place}"
    numbers = _numbers(record.numbers, where)
    n = len(numbers)
    if n == 0:
        raise So3kError(f"{where}: holds no atoms; remove the frame")
    positions = _array(record.positions, (n, 3), "positions", where) * units.length
    cell, pbc = _cell(record.cell, record.pbc, where)
    if cell is not None:
        cell = cell * units.length
        check_cell(numbers, cell, pbc, where, NO_CELL)
    labels = record.labels
    energy = forces = None
    if labels.get("energy") is not None:
        energy = float(_array(labels["energy"], (1,), "energy", where)[0] * units.energy)
    if labels.get("forces") is not None:
        forces = _array(labels["forces"], (n, 3), "forces", where) * units.forces
    elif n == 1 and not pbc.any():
        forces = np.zeros((1, 3))  # by symmetry
    group = None if record.group is None else np.asarray(record.group)
    geometry = numbers, positions, cell, pbc
    frame = Frame(*geometry, energy, forces, None, place, source, group, record.charge_state)
    return frame._replace(
        stress=_stress(labels, frame.volume, units, where),
        kept=record.kept,
        **_charge_labels(labels, frame, units),
    )


def _charge_labels(labels: Mapping[str, Any], frame: Frame, units: Units) -> dict[str, Any]:
    """Dipole, charges and Hirshfeld ratios that a frame has."""
    n = len(frame.numbers)
    of = {
        "dipole": ((3,), units.dipole),
        "charges": ((n,), 1.0),
        "hirshfeld_ratios": ((n,), 1.0),
    }
    return {
        name: _array(labels[name], shape, name, frame.where) * unit
        for name, (shape, unit) in of.items()
        if labels.get(name) is not None and (name != "dipole" or frame.volume is None)
    }


def require_labels(frames: Iterable[Frame], labels: Iterable[str]) -> None:
    """Refuse frames that lack a label; a molecule without a cell needs no stress.

    Args:
        frames: what was read.
        labels: of LABELS and CHARGE_LABELS.

    Raises:
        So3kError: names the first frame without it.
    """
    labels = tuple(labels)
    for frame in frames:
        for label in labels:
            if lacks(frame, label):
                raise So3kError(
                    f"{frame.where}: has no {label}; name its key ({label}_key) or set loss.{label} to 0"
                )


def lacks(frame: Frame, label: str) -> bool:
    """Whether a frame has no label that it could have: a stress with a cell, a dipole without one."""
    possible = {"stress": frame.volume is not None, "dipole": frame.volume is None}.get(label, True)
    return possible and getattr(frame, label) is None


def warn_partial_labels(frames: Sequence[Frame], labels: Iterable[str]) -> None:
    """Warn of labels that only some of the frames have.

    Args:
        frames: what was read.
        labels: of LABELS and CHARGE_LABELS.
    """
    for label in labels:
        without = [frame for frame in frames if lacks(frame, label)]
        if without:
            warnings.warn(
                f"{len(without)} of {len(frames)} frames have no {label} (the first: {without[0].where}): "
                "they do not count in its part of the loss",
                So3kWarning,
                stacklevel=3,
            )


def require_elements(frames: Iterable[Frame], elements: Iterable[int]) -> None:
    """Refuse frames with an element that the model does not know.

    Args:
        frames: what was read.
        elements: atomic numbers that the model knows.

    Raises:
        So3kError: names the first such frame and element.
    """
    known = np.array(sorted(int(z) for z in elements))
    for frame in frames:
        unknown = np.setdiff1d(frame.numbers, known)
        if len(unknown):
            raise So3kError(
                f"{frame.where}: element {chemical_symbols[unknown[0]]} is unknown to the model, which knows "
                f"{', '.join(chemical_symbols[z] for z in known)}; remove the frame or train with it"
            )


def list_keys(keys: Iterable[str]) -> str:
    """The keys of a file for messages; shortened if there are many."""
    names = sorted(keys)
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") or "none"


def _array(value: Any, shape: tuple[int, ...], name: str, where: str) -> Floats:
    """A finite float64 array of the given shape; refuses other values."""
    try:
        if np.asarray(value).dtype.kind not in "fiu":
            raise ValueError
        array = np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError):
        raise So3kError(f"{where}: {name} holds {str(value)[:40]!r}, not numbers; correct the file") from None
    if array.size != np.prod(shape) or (array.ndim > 1 and array.shape != shape):
        raise So3kError(
            f"{where}: {name} has shape {array.shape}, expected {shape}; correct the file or the key"
        )
    bad = np.flatnonzero(~(np.abs(array.reshape(-1)) < LARGEST))
    if len(bad):
        place = f" of atom {bad[0] // 3}" if name in ("positions", "forces") else ""
        raise So3kError(
            f"{where}: {name}{place} is {array.reshape(-1)[bad[0]]}; numbers must be finite: "
            "remove the frame or correct the file"
        )
    return array.reshape(shape)


def _numbers(value: Any, where: str) -> Ints:
    """Atomic numbers; refuses values that are not integers from 1 to 118."""
    array = np.asarray(value)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise So3kError(
            f"{where}: atomic numbers must be one list of integers, not {array.dtype} {array.shape}"
        )
    numbers = array.astype(np.int64)
    bad = np.flatnonzero((numbers < 1) | (numbers >= len(chemical_symbols)))
    if len(bad):
        raise So3kError(
            f"{where}: atom {bad[0]} has atomic number {numbers[bad[0]]}, which is no element; correct it"
        )
    return numbers


def _cell(value: Any, pbc: Any, where: str) -> tuple[Floats | None, NDArray[np.bool_]]:
    """Lattice vectors and periodic axes; refuses those that do not fit each other."""
    periodic = np.array(np.broadcast_to(np.asarray(pbc, dtype=bool), (3,)))
    if value is None or not np.any(value):
        if periodic.any():
            raise So3kError(f"{where}: periodic, but without a cell; add the lattice or set pbc to F F F")
        return None, periodic
    cell = _array(value, (3, 3), "cell", where)
    lengths = np.linalg.norm(cell, axis=1)
    vectors = cell[periodic] / np.where(lengths > 0, lengths, 1.0)[periodic, None]
    if len(vectors) and np.linalg.svd(vectors, compute_uv=False)[-1] < 1e-6:
        raise So3kError(
            f"{where}: the periodic vectors of the cell {cell.tolist()} are linearly dependent; correct "
            "lattice or pbc"
        )
    return cell, periodic


def _stress(labels: dict[str, Any], volume: float | None, units: Units, where: str) -> Floats | None:
    """The stress in eV/Å³ from six (xx yy zz yz xz xy) or nine numbers, or from −virial / volume."""
    name = next((name for name in ("stress", "virial") if labels.get(name) is not None), None)
    if name is None or volume is None:
        return None
    flat = np.asarray(labels[name]).reshape(-1)
    if flat.size == 6:
        flat = flat[[0, 5, 4, 5, 1, 3, 4, 3, 2]]
    matrix = _array(flat, (9,), name, where).reshape(3, 3)
    matrix = matrix * units.stress if name == "stress" else -matrix * units.virial / volume
    uneven = float(np.abs(matrix - matrix.T).max())
    if uneven > max(MOST_UNEVEN, 0.1 * float(np.abs(matrix).max())):
        raise So3kError(
            f"{where}: {name} is not symmetric, {matrix.round(6).tolist()} eV/Å³; correct the order of its "
            "numbers"
        )
    return 0.5 * (matrix + matrix.T)
