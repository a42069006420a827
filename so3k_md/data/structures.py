"""Extended XYZ and whatever else ASE reads."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

from so3k_md.data.frames import Record
from so3k_md.errors import So3kError
from so3k_md.totals import GivenTotals


def read_structures(path: Path, keys: dict[str, str]) -> Iterator[tuple[Record, list[str]]]:
    """The frames of a file that ASE can read, each with the keys it holds.

    Args:
        path: an extended XYZ file, or another format that ASE knows by its name.
        keys: the key of energy, forces, stress and virial.

    Raises:
        So3kError: names the frame that cannot be read.
    """
    is_xyz = path.suffix.lower() in (".xyz", ".extxyz")
    if is_xyz:
        _check_blocks(path)
    index = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for atoms in ase.io.iread(str(path), index=":", format="extxyz" if is_xyz else None):
                yield _record(atoms, keys)
                index += 1
    except So3kError:
        raise
    except Exception as error:  # ASE's readers raise whatever their parsing met
        if not is_xyz and isinstance(error, (ase.io.formats.UnknownFileTypeError, UnicodeDecodeError)):
            raise So3kError(
                f"{path}: not a format that is read here; use extended XYZ (.xyz) or npz"
            ) from error
        reason = (
            f"unknown element {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        )
        raise So3kError(
            f"{path}, frame {index}: cannot be read ({reason}); correct or remove the frame"
        ) from error


def _record(atoms: Atoms, keys: dict[str, str]) -> tuple[Record, list[str]]:
    """The record of one structure."""
    found: dict[str, Any] = dict(atoms.info)
    found |= {name: value for name, value in atoms.arrays.items() if name not in ("numbers", "positions")}
    found |= getattr(atoms.calc, "results", {})
    labels = {label: found[key] for label, key in keys.items() if key in found}
    cell = np.asarray(atoms.cell) if np.any(atoms.cell) else None
    group = atoms.arrays.get("group")
    totals = given_totals(atoms)
    return Record(atoms.numbers, atoms.positions, cell, atoms.pbc, labels, group, totals), sorted(found)


def given_totals(atoms: Atoms) -> GivenTotals:
    """Charge, spin and fragments as a structure of ASE carries them."""
    info = atoms.info
    return GivenTotals(
        info.get("charge"), info.get("spin"), atoms.arrays.get("fragment"), info.get("fragment_charges")
    )


def _check_blocks(path: Path) -> None:
    """Walk through the blocks of an XYZ file: ASE stops in silence at a blank line and pads nothing.

    Raises:
        So3kError: names the frame and the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise So3kError(f"{path}: is not text; give an extended XYZ or an npz file") from None
    while lines and not lines[-1].strip():
        lines.pop()
    row = frame = 0
    while row < len(lines):
        head = lines[row].strip()
        if not head.isdigit():
            raise So3kError(
                f"{path}, frame {frame}: line {row + 1} must be the number of atoms, not {head[:40]!r}; "
                "correct the count of the frame before or the file"
            )
        if row + 2 + int(head) > len(lines):
            raise So3kError(
                f"{path}, frame {frame}: {head} atoms are announced and the file ends after "
                f"{max(0, len(lines) - row - 2)}; it is truncated: fetch it again or remove the frame"
            )
        row += 2 + int(head)
        frame += 1
