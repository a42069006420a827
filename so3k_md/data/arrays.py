"""npz files in the style of MD17, rMD17 and QM7-X: one array per quantity, over all frames."""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from so3k_md.data.frames import Record, list_keys
from so3k_md.errors import So3kError
from so3k_md.totals import GivenTotals

NUMBERS = ("z", "Z", "nuclear_charges", "atomic_numbers", "numbers", "species")
POSITIONS = ("R", "coords", "positions", "coordinates", "xyz")
DEFAULTS = {
    "energy": ("E", "energies", "energy"),
    "forces": ("F", "forces"),
    "stress": ("stress",),
    "virial": ("virial",),
}
CELL = ("cell", "lattice")
STATED_UNITS = {"e_unit": "energy", "r_unit": "length"}  # written by sGDML beside the arrays
ALIASES = {"ang": "angstrom", "å": "angstrom", "ha": "hartree", "au": "hartree", "a0": "bohr"}

Arrays = dict[str, NDArray[Any]]


def read_arrays(
    path: Path, keys: dict[str, str], units: dict[str, str]
) -> Iterator[tuple[Record, list[str]]]:
    """The frames of an npz file, each with the keys of the file.

    Atomic numbers, and the numbers of groups and fragments under the keys `group` and `fragment`, may be
    common to all frames (n,) or per frame (frames, n), padded with zeros; likewise `charge`, `spin` and
    `fragment_charges`.

    Args:
        path: the file.
        keys: the keys that were asked for; others have their usual names.
        units: the stated units of energy and length.

    Raises:
        So3kError: names the array that is missing or has the wrong shape.
    """
    arrays = load_npz(path)
    present = sorted(arrays)
    _check_stated_units(arrays, units, path)
    numbers = _first(arrays, NUMBERS, "atomic numbers", path)
    positions = _first(arrays, POSITIONS, "positions", path)
    if positions.ndim == 2:
        positions = positions[None]
    if positions.ndim != 3 or positions.shape[2] != 3:
        raise So3kError(f"{path}: positions have shape {positions.shape}, expected (frames, atoms, 3)")
    n_frames, n_atoms = positions.shape[:2]
    if numbers.shape not in ((n_atoms,), (n_frames, n_atoms)):
        raise So3kError(f"{path}: {n_atoms} positions per frame, yet atomic numbers of shape {numbers.shape}")
    # who asks for a virial does not want the stress that stands beside it
    stresses = {"stress", "virial"} & keys.keys() or {"stress", "virial"}
    wanted = [label for label in DEFAULTS if label in stresses or label not in ("stress", "virial")]
    labels = {
        label: _per_frame(_choose(arrays, keys, label), n_frames, label, path)
        for label in wanted
        if _choose(arrays, keys, label) is not None
    }
    cells = next((arrays[key] for key in CELL if key in arrays), None)
    pbc = _pbc(arrays.get("pbc", np.array(cells is not None)), n_frames, path)
    for index in range(n_frames):
        z = numbers if numbers.ndim == 1 else numbers[index]
        real = z != 0
        chosen = {label: values[index] for label, values in labels.items()}
        if "forces" in chosen and chosen["forces"].shape == (n_atoms, 3):
            chosen["forces"] = chosen["forces"][real]
        cell = None if cells is None else _cell(cells, index, n_frames, path)
        periodic = pbc[index]
        group = _of_atoms(arrays.get("group"), index, n_frames, real)
        totals = _totals(arrays, index, n_frames, real)
        yield Record(z[real], positions[index][real], cell, periodic, chosen, group, totals), present


def load_npz(path: Path) -> Arrays:
    """All arrays of an npz file.

    Raises:
        So3kError: not an npz file, or a damaged one.
    """
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise So3kError(f"{path}: holds one array; an npz file with named arrays is needed")
            return {key: archive[key] for key in archive.files}
    except (
        ValueError,
        EOFError,
        OSError,
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
    ) as error:
        raise So3kError(
            f"{path}: cannot be read as npz ({' '.join(str(error).split())[:80]}): fetch it again"
        ) from error


def _first(arrays: Arrays, names: tuple[str, ...], what: str, path: Path) -> NDArray[Any]:
    """The array under the first of the names that is there."""
    for name in names:
        if name in arrays:
            return arrays[name]
    raise So3kError(
        f"{path}: no {what}; expected one of {', '.join(names)}, keys present: {list_keys(arrays)}"
    )


def _pbc(flags: NDArray[Any], n_frames: int, path: Path) -> NDArray[Any]:
    """Periodic axes of each frame, (frames, 3), from one flag, three, one for each frame, or all."""
    if flags.shape == (n_frames,) and n_frames != 3:
        flags = flags[:, None]
    if flags.shape not in ((), (1,), (3,), (n_frames, 1), (n_frames, 3)):
        raise So3kError(f"{path}: pbc has shape {flags.shape}, expected (3,) or ({n_frames}, 3)")
    return np.broadcast_to(flags, (n_frames, 3))


def _choose(arrays: Arrays, keys: dict[str, str], label: str) -> NDArray[Any] | None:
    """The array of a label: under the key asked for, else under its usual names."""
    names = (keys[label],) if label in keys else DEFAULTS[label]
    return next((arrays[name] for name in names if name in arrays), None)


def _per_frame(values: NDArray[Any] | None, n_frames: int, label: str, path: Path) -> NDArray[Any]:
    """One entry per frame, or a refusal."""
    values = np.atleast_1d(np.asarray(values))
    if n_frames == 1 and label == "forces" and values.ndim == 2:
        values = values[None]
    if len(values) != n_frames:
        raise So3kError(
            f"{path}: {n_frames} frames, yet {len(values)} entries of {label}; correct the file or the key"
        )
    return values


def _cell(cells: NDArray[Any], index: int, n_frames: int, path: Path) -> NDArray[Any]:
    """The lattice of one frame, from one cell for all or one each, as vectors or edge lengths."""
    if cells.shape in ((n_frames, 3, 3), (n_frames, 9)):
        return cells[index].reshape(3, 3)
    if cells.shape == (3, 3):
        return cells
    if cells.shape == (3,):
        return np.diag(cells)
    raise So3kError(f"{path}: cell has shape {cells.shape}, expected ({n_frames}, 3, 3), (3, 3) or (3,)")


def _of_atoms(numbers: NDArray[Any] | None, index: int, n_frames: int, real: NDArray[Any]) -> Any:
    """Groups or fragments of one frame without its padding; another shape is refused where they are used."""
    if numbers is None:
        return None
    chosen = numbers[index] if numbers.ndim == 2 and len(numbers) == n_frames else numbers
    return chosen[real] if chosen.shape == real.shape else chosen


def _totals(arrays: Arrays, index: int, n_frames: int, real: NDArray[Any]) -> GivenTotals:
    """Charge, spin and fragments of one frame, each common to all frames or one per frame."""

    def of_frame(key: str, ndim: int) -> Any:
        values = arrays.get(key)
        per_frame = values is not None and values.ndim > ndim and len(values) == n_frames
        return values[index] if per_frame else values  # type: ignore[index]

    fragment = _of_atoms(arrays.get("fragment"), index, n_frames, real)
    return GivenTotals(of_frame("charge", 0), of_frame("spin", 0), fragment, of_frame("fragment_charges", 1))


def _check_stated_units(arrays: Arrays, units: dict[str, str], path: Path) -> None:
    """Refuse a file that states other units than the user."""
    for key, quantity in STATED_UNITS.items():
        if key not in arrays:
            continue
        said = arrays[key].item() if arrays[key].size == 1 else str(arrays[key])
        name = (said.decode() if isinstance(said, bytes) else str(said)).lower()
        if ALIASES.get(name, name) != units[quantity].lower():
            raise So3kError(
                f"{path}: states {quantity} in {name} ({key}), and {units[quantity]} was asked for; "
                f"set {quantity}_unit to what it is"
            )
