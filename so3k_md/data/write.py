"""Writes extended XYZ in full double precision; ASE's own writer rounds to eight decimals."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from so3k_md.data.frames import Frame
from so3k_md.data.keys import is_number
from so3k_md.files import atomic
from so3k_md.structure.charges import GivenChargeState, Spin, by_number

Floats = NDArray[np.float64]
WRITTEN = {"unpaired": "unpaired_electrons", "multiplicity": "multiplicity", "undecided": "total_spin"}
Entry = tuple[Frame, Mapping[str, Any], Mapping[str, Floats]]


def write_extxyz(path: str | Path, entries: Iterable[Entry]) -> None:
    """Write structures with groups, charges, fragments, and values per frame and per atom.

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
    columns = {"pos": frame.positions} | {key: array.reshape(len(array), -1) for key, array in arrays.items()}
    layout = ":".join(f"{key}:R:{array.shape[1]}" for key, array in columns.items())
    members = [""] * len(frame.numbers)
    charge_state = frame.charge_state
    for name, numbers in (("group", frame.group), ("fragment", charge_state.fragment)):
        whole = None if numbers is None else np.asarray(numbers)
        if whole is not None and whole.dtype.kind in "iu" and whole.shape == frame.numbers.shape:
            layout = f"{layout}:{name}:I:1"
            members = [f"{before} {number}" for before, number in zip(members, whole.tolist(), strict=True)]
    head = [f"Properties=species:S:1:{layout}"]
    head += [f"{name}={float(value)!r}" for name, value in _charge_and_spin(charge_state).items()]
    if charge_state.fragment_charges is not None:
        head.append(f'fragment_charges="{_text(in_order(charge_state))}"')
    if frame.cell is not None:
        head.insert(0, f'Lattice="{_text(frame.cell)}"')
    head += [
        f'{key}="{_text(value)}"' if np.ndim(value) else f"{key}={value!r}" for key, value in values.items()
    ]
    head.append('pbc="' + " ".join("FT"[flag] for flag in frame.pbc.astype(int)) + '"')
    rows = np.concatenate(list(columns.values()), axis=1).tolist()
    atoms = (
        f"{chemical_symbols[z]:<2} " + " ".join(f"{number!r:>24}" for number in row) + member
        for z, row, member in zip(frame.numbers, rows, members, strict=True)
    )
    return [str(len(frame.numbers)), " ".join(head), *atoms]


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
