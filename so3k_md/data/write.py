"""Writes extended XYZ in full double precision; ASE's own writer rounds to eight decimals."""

import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.io.extxyz import key_val_dict_to_str
from numpy.typing import NDArray

from so3k_md.data.frames import FileKeys, Frame
from so3k_md.data.keys import is_number
from so3k_md.errors import So3kWarning
from so3k_md.files import atomic
from so3k_md.structure.charges import GivenChargeState, Spin, by_number

Floats = NDArray[np.float64]
TYPES = {"f": "R", "i": "I", "u": "I", "b": "L", "U": "S"}  # of columns, by the kind of their array
NOT_KEYS = ("Lattice", "Properties", "pbc")  # which describe the block itself
WRITTEN = {"unpaired": "unpaired_electrons", "multiplicity": "multiplicity", "undecided": "total_spin"}
Entry = tuple[Frame, Mapping[str, Any], Mapping[str, Floats]]


def write_extxyz(path: str | Path, entries: Iterable[Entry]) -> None:
    """Write structures with groups, charges, fragments, kept keys, and values per frame and per atom.

    A kept key with the name of one of these values becomes `reference_KEY`.

    Reading the file gives numbers with the same bits.

    Args:
        path: file to write, atomically.
        entries: a structure, its values by key (numbers or arrays), and its arrays by key, (n,) or (n, k).
    """
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for entry in entries:
            file.writelines(f"{line}\n" for line in _lines(*entry))


def _lines(frame: Frame, values: Mapping[str, Any], arrays: Mapping[str, Floats]) -> list[str]:
    """The block of one structure."""
    columns = {"pos": frame.positions, **arrays}
    charge_state = frame.charge_state
    for name, numbers in (("group", frame.group), ("fragment", charge_state.fragment)):
        whole = None if numbers is None else np.asarray(numbers)
        if whole is not None and whole.dtype.kind in "iu" and whole.shape == frame.numbers.shape:
            columns[name] = whole
    own = {name: repr(float(value)) for name, value in _charge_and_spin(charge_state).items()}
    if charge_state.fragment_charges is not None:
        own["fragment_charges"] = f'"{_text(in_order(charge_state))}"'
    kept = _under_free_names(frame.kept, {*own, *columns} - {*values, *arrays}, {*values, *arrays})
    columns |= kept.arrays
    layout = "".join(f":{name}:{TYPES[a.dtype.kind]}:{_flat(a).shape[1]}" for name, a in columns.items())
    head = [] if frame.cell is None else [f'Lattice="{_text(frame.cell)}"']
    head.append(f"Properties=species:S:1{layout}")
    head += [f"{name}={text}" for name, text in own.items()]
    head += [
        f'{key}="{_text(value)}"' if np.ndim(value) else f"{key}={value!r}" for key, value in values.items()
    ]
    head += [key_val_dict_to_str(kept.values)] if kept.values else []
    head.append('pbc="' + " ".join("FT"[flag] for flag in frame.pbc.astype(int)) + '"')
    symbols = [f"{chemical_symbols[z]:<2}" for z in frame.numbers]
    rows = zip(symbols, *map(_cells, columns.values()), strict=True)
    return [str(len(frame.numbers)), " ".join(head), *map(" ".join, rows)]


def _under_free_names(kept: FileKeys, written: Collection[str], taken: Collection[str]) -> FileKeys:
    """Kept keys that can be written, `reference_KEY` where the name is taken.

    Args:
        kept: of the frame.
        written: names under which the frame itself says the same.
        taken: names of other values and arrays.
    """

    def name_of(key: str) -> str:
        return f"reference_{key}" if key in taken else key

    values = {name_of(key): value for key, value in kept.values.items() if key not in (*written, *NOT_KEYS)}
    arrays = {key: _typed(array) for key, array in kept.arrays.items() if key not in written}
    if unwritable := sorted(key for key, array in arrays.items() if not _is_column(array)):
        warnings.warn(
            f"{', '.join(unwritable)}: texts with blanks and objects do not fit columns and are left out",
            So3kWarning,
            stacklevel=2,
        )
    return FileKeys(values, {name_of(key): array for key, array in arrays.items() if _is_column(array)})


def _typed(values: NDArray[Any]) -> NDArray[Any]:
    """The values as an array of texts, if they are texts, which ASE reads as objects."""
    array = np.asarray(values)
    are_texts = array.dtype.kind == "O" and all(isinstance(value, str) for value in array.flat)
    return array.astype(str) if are_texts else array


def _is_column(array: NDArray[Any]) -> bool:
    """Whether columns of extended XYZ can hold an array."""
    if array.dtype.kind == "U":
        return all(len(text.split()) == 1 for text in array.reshape(-1).tolist())
    return array.dtype.kind in TYPES and array.size > 0


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    """An array with one row for each atom."""
    return array.reshape(len(array), -1)


def _cells(array: NDArray[Any]) -> list[str]:
    """The text of each atom in the columns of an array; numbers keep all digits."""
    kind = array.dtype.kind
    if kind == "f":
        return [" ".join(f"{number!r:>24}" for number in row) for row in _flat(array).tolist()]
    if kind == "b":
        return [" ".join("FT"[flag] for flag in row) for row in _flat(array).tolist()]
    return [" ".join(map(str, row)) for row in _flat(array).tolist()]


def _charge_and_spin(charge_state: GivenChargeState) -> dict[str, Any]:
    """Charge and spin under names that state what they count."""
    found = {"charge": charge_state.charge} if is_number(charge_state.charge) else {}
    spin = charge_state.spin if isinstance(charge_state.spin, Spin) else Spin(charge_state.spin, "S")
    if not is_number(spin.value):
        return found
    if spin.convention == "S":
        return found | {"unpaired_electrons": 2 * spin.value}
    return found | {WRITTEN.get(spin.convention, "spin"): spin.value}


def in_order(charge_state: GivenChargeState) -> Any:
    """The charges of fragments in rising order of their numbers."""
    charges = charge_state.fragment_charges
    if isinstance(charges, Mapping):
        known = by_number(charges)
        return [known[number] for number in np.unique(charge_state.fragment).tolist()]
    return charges


def _text(array: Floats) -> str:
    """Numbers as text from which reading gives the same bits."""
    return " ".join(repr(number) for number in np.asarray(array, dtype=np.float64).reshape(-1).tolist())
