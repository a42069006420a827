"""Reads npz files in the style of MD17, rMD17 and QM7-X: one array for each quantity, over all frames."""

import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from so3k_md.data.frames import FileKeys, Record, list_keys
from so3k_md.data.keys import CHARGE_STATE, charge_state_from
from so3k_md.data.units import same_unit
from so3k_md.errors import So3kError
from so3k_md.memory import available_memory, describe_bytes
from so3k_md.structure.charges import GivenChargeState

NUMBERS = ("z", "Z", "nuclear_charges", "atomic_numbers", "numbers", "species")
POSITIONS = ("R", "coords", "positions", "coordinates", "xyz")
DEFAULTS = {
    "energy": ("E", "energies", "energy"),
    "forces": ("F", "forces"),
    "stress": ("stress",),
    "virial": ("virial",),
}
CELL = ("cell", "lattice")
FOREIGN_CELL = ("cell", "cells", "lattice", "lattices", "box", "boxes", "unit_cell")  # in lower case
STATED_UNITS = {"e_unit": "energy", "r_unit": "length"}  # written by sGDML in the same file as the arrays
OF_ATOMS = ("group", "fragment")
OF_EACH_ATOM = {"forces": (3,), "charges": (), "hirshfeld_ratios": ()}  # shape of the label of one atom

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")


class Header(NamedTuple):
    """Shape and type of an array, from its header."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def read_arrays(
    path: Path,
    keys: dict[str, str],
    units: dict[str, str],
    convention: str = "auto",
    keep: bool = False,
) -> Iterator[tuple[Record, list[str]]]:
    """The frames of an npz file, each with the keys of the file.

    Atomic numbers, and the numbers of groups and fragments under the keys `group` and `fragment`, may be
    common to all frames (n,) or per frame (frames, n), padded with zeros. Charge, spin and
    `fragment_charges` may also be common to all frames or per frame.

    Args:
        path: the file.
        keys: keys given by the user; other labels have their usual keys.
        units: the stated units of energy and length.
        convention: what an array named spin counts; see `charge_state_from`.
        keep: whether the records keep all arrays with an entry for each frame or each atom.

    Raises:
        So3kError: names the array that is missing or has the wrong shape.
    """
    headers = npz_headers(path)
    present = sorted(headers)
    n_frames, n_atoms = _check_shapes(headers, path)
    # if the user names the key of a virial, a stress in the same file is not read, and the reverse
    stresses = {"stress", "virial"} & keys.keys() or {"stress", "virial"}
    known = dict.fromkeys([*DEFAULTS, *keys])
    wanted = [label for label in known if label in stresses or label not in ("stress", "virial")]
    chosen_keys = {label: key for label in wanted if (key := _choose(headers, keys, label)) is not None}
    others = [*NUMBERS, *POSITIONS, *CELL, *STATED_UNITS, *CHARGE_STATE, *OF_ATOMS, "pbc"]
    rest = [name for name, header in headers.items() if keep and not header.dtype.hasobject]
    arrays = load_npz(path, {*chosen_keys.values(), *others, *rest} & headers.keys())
    _check_stated_units(arrays, units, path)
    if foreign := sorted(key for key in headers if key.lower() in FOREIGN_CELL and key not in CELL):
        raise So3kError(f"{path}: the cell under '{foreign[0]}' is not read; name it cell, or remove it")
    _check_agreement(arrays, POSITIONS, path)
    numbers = _first(arrays, NUMBERS, "atomic numbers", path)
    positions = _first(arrays, POSITIONS, "positions", path).reshape(n_frames, n_atoms, 3)
    labels = {label: _per_frame(arrays[key], n_frames, label, path) for label, key in chosen_keys.items()}
    cells = next((arrays[key] for key in CELL if key in arrays), None)
    pbc = _pbc(arrays.get("pbc", np.array(cells is not None)), n_frames, path)
    for index in range(n_frames):
        z = numbers if numbers.ndim == 1 else numbers[index]
        real = z != 0
        chosen = {label: values[index] for label, values in labels.items()}
        for label, shape in OF_EACH_ATOM.items():
            if label in chosen and chosen[label].shape == (n_atoms, *shape):
                chosen[label] = chosen[label][real]
        cell = None if cells is None else _cell(cells, index, n_frames, path)
        periodic = pbc[index]
        group = _of_atoms(arrays.get("group"), index, n_frames, real)
        charge_state = _charge_state(arrays, index, n_frames, real, convention, f"{path}, frame {index}")
        kept = _kept(arrays, index, n_frames, real) if keep else FileKeys()
        geometry = z[real], positions[index][real], cell, periodic
        yield Record(*geometry, chosen, group, charge_state, chosen_keys, kept), present


def npz_headers(path: Path) -> dict[str, Header]:
    """Shape and type of each array of an npz file, without reading its numbers.

    Raises:
        So3kError: not an npz file, or a damaged one.
    """
    with _readable(path):
        with path.open("rb") as file:
            if file.read(6) == b"\x93NUMPY":
                raise So3kError(f"{path}: holds one array; an npz file with named arrays is needed")
        found = {}
        with zipfile.ZipFile(path) as archive:
            if len(set(archive.namelist())) < len(archive.namelist()):
                raise ValueError("two arrays have the same name")
            for name in archive.namelist():
                with archive.open(name) as member:
                    version = np.lib.format.read_magic(member)
                    read = HEADERS[version]
                    shape, _, dtype = read(member)
                    found[name.removesuffix(".npy")] = Header(shape, dtype)
        return found


def load_npz(path: Path, names: Collection[str]) -> Arrays:
    """Arrays of an npz file.

    Args:
        path: the file.
        names: of the arrays.

    Raises:
        So3kError: not an npz file, a damaged file, or more numbers than fit the memory.
    """
    headers = npz_headers(path)
    needed = sum(
        float(np.prod(headers[name].shape, dtype=float)) * headers[name].dtype.itemsize for name in names
    )
    if needed > 0.5 * available_memory():
        raise So3kError(
            f"{path}: its arrays take {describe_bytes(needed)}, more than half of the memory that is free "
            f"({describe_bytes(available_memory())}): split the file, or correct the shapes of its arrays"
        )
    with _readable(path), np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in names}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn errors of numpy and zipfile for damaged files into an error of one line."""
    try:
        yield
    except (
        ValueError,
        EOFError,
        OSError,
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        MemoryError,
        SyntaxError,
    ) as error:
        raise So3kError(
            f"{path}: cannot be read as npz ({' '.join(str(error).split())[:80]}): fetch it again"
        ) from error


def _check_shapes(headers: dict[str, Header], path: Path) -> tuple[int, int]:
    """Frames and atoms, from the shapes of positions and atomic numbers alone."""
    numbers = _first(headers, NUMBERS, "atomic numbers", path).shape
    shape = _first(headers, POSITIONS, "positions", path).shape
    if len(shape) == 2:
        shape = (1, *shape)
    if len(shape) != 3 or shape[2] != 3:
        raise So3kError(f"{path}: positions have shape {shape}, expected (frames, atoms, 3)")
    n_frames, n_atoms = shape[:2]
    if numbers not in ((n_atoms,), (n_frames, n_atoms)):
        raise So3kError(f"{path}: {n_atoms} positions per frame, but atomic numbers of shape {numbers}")
    return n_frames, n_atoms


def _first(arrays: Mapping[str, T], names: tuple[str, ...], what: str, path: Path) -> T:
    """The value under the first of the names that exists."""
    for name in names:
        if name in arrays:
            return arrays[name]
    raise So3kError(
        f"{path}: no {what}; expected one of {', '.join(names)}, keys present: {list_keys(arrays)}"
    )


def _check_agreement(arrays: Arrays, names: tuple[str, ...], path: Path) -> None:
    """Refuse arrays that have names of the same quantity and differ."""
    found = [name for name in names if name in arrays]
    for name in found[1:]:
        if not np.array_equal(arrays[name], arrays[found[0]]):
            raise So3kError(f"{path}: {found[0]} and {name} contradict each other: remove one of them")


def _pbc(flags: NDArray[Any], n_frames: int, path: Path) -> NDArray[Any]:
    """Periodic axes of each frame, (frames, 3), from one flag, three, one for each frame, or all."""
    if flags.dtype.kind not in "biuf" or not np.isin(flags, (0, 1)).all():
        raise So3kError(f"{path}: pbc holds values other than true and false; correct it")
    if flags.shape == (n_frames,) and n_frames != 3:
        flags = flags[:, None]
    if flags.shape not in ((), (1,), (3,), (n_frames, 1), (n_frames, 3)):
        raise So3kError(f"{path}: pbc has shape {flags.shape}, expected (3,) or ({n_frames}, 3)")
    return np.broadcast_to(flags, (n_frames, 3))


def _choose(headers: Collection[str], keys: dict[str, str], label: str) -> str | None:
    """The key of a label: the one given by the user, otherwise the first of its usual names that exists."""
    names = (keys[label],) if label in keys else DEFAULTS[label]
    return next((name for name in names if name in headers), None)


def _per_frame(values: NDArray[Any], n_frames: int, label: str, path: Path) -> NDArray[Any]:
    """The values with one entry per frame; refuses another number of entries."""
    values = np.atleast_1d(np.asarray(values))
    if n_frames == 1 and label in OF_EACH_ATOM and values.ndim == 1 + len(OF_EACH_ATOM[label]):
        values = values[None]
    if len(values) != n_frames:
        raise So3kError(
            f"{path}: {n_frames} frames, but {len(values)} entries of {label}; correct the file or the key"
        )
    return values


def _cell(cells: NDArray[Any], index: int, n_frames: int, path: Path) -> NDArray[Any]:
    """The lattice of one frame, from one cell for all frames or one for each, as vectors or edge lengths."""
    if cells.shape in ((n_frames, 3, 3), (n_frames, 9)):
        return cells[index].reshape(3, 3)
    if cells.shape == (3, 3):
        return cells
    if cells.shape == (3,):
        return np.diag(cells)
    raise So3kError(f"{path}: cell has shape {cells.shape}, expected ({n_frames}, 3, 3), (3, 3) or (3,)")


def _of_atoms(numbers: NDArray[Any] | None, index: int, n_frames: int, real: NDArray[Any]) -> Any:
    """Groups or fragments of one frame without padding; other shapes are refused where they are used."""
    if numbers is None:
        return None
    chosen = numbers[index] if numbers.ndim == 2 and len(numbers) == n_frames else numbers
    return chosen[real] if chosen.shape == real.shape else chosen


def _kept(arrays: Arrays, index: int, n_frames: int, real: NDArray[Any]) -> FileKeys:
    """The entries of one frame and of its atoms in all arrays that have such, without geometry and cell."""
    own, of_atoms = dict[str, Any](), dict[str, NDArray[Any]]()
    for name in arrays.keys() - {*NUMBERS, *POSITIONS, *CELL, *STATED_UNITS, "pbc"}:
        values = arrays[name]
        each = values.ndim > 0 and len(values) == n_frames
        chosen = values[index] if each else values
        if chosen.ndim > 0 and len(chosen) == len(real):
            of_atoms[name] = chosen[real]
        elif each or chosen.ndim == 0:
            own[name] = chosen.astype(str) if chosen.dtype.kind == "S" else chosen
    return FileKeys(own, of_atoms)


def _charge_state(
    arrays: Arrays, index: int, n_frames: int, real: NDArray[Any], convention: str, where: str
) -> GivenChargeState:
    """Charge, spin and fragments of one frame, each common to all frames or one per frame."""

    def of_frame(values: NDArray[Any], ndim: int) -> Any:
        return values[index] if values.ndim > ndim and len(values) == n_frames else values

    values = {
        key: of_frame(arrays[key], 1 if key == "fragment_charges" else 0)
        for key in CHARGE_STATE
        if key in arrays
    }
    values |= {key: np.squeeze(values[key])[()] for key in values if key != "fragment_charges"}
    fragment = _of_atoms(arrays.get("fragment"), index, n_frames, real)
    return charge_state_from(values, fragment, convention, where)


def _check_stated_units(arrays: Arrays, units: dict[str, str], path: Path) -> None:
    """Refuse a file that states other units than the user."""
    for key, quantity in STATED_UNITS.items():
        if key not in arrays:
            continue
        stated = arrays[key].item() if arrays[key].size == 1 else str(arrays[key])
        name = (stated.decode(errors="replace") if isinstance(stated, bytes) else str(stated)).lower()
        if not same_unit(name, units[quantity]):
            raise So3kError(
                f"{path}: array {key} states {quantity} in {name}, but {quantity}_unit is {units[quantity]}; "
                f"set {quantity}_unit to the unit of the file"
            )
