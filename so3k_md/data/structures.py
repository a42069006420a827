"""Reads extended XYZ and other formats of ASE."""

import io
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.io.extxyz import per_atom_properties
from ase.io.formats import UnknownFileTypeError, filetype

from so3k_md.data.frames import FileKeys, Frame, Record, to_frame
from so3k_md.data.keys import charge_state_from
from so3k_md.data.xyz import DAMAGED, is_compressed, read_blocks
from so3k_md.errors import So3kError
from so3k_md.structure.charges import GivenChargeState

FOREIGN = "not a format that is read here; use extended XYZ (.xyz) or npz"


def read_structures(
    path: Path, keys: dict[str, str], convention: str = "auto", keep: bool = False
) -> Iterator[tuple[Record, list[str]]]:
    """The frames of a file that ASE can read, each with the keys that it contains.

    Args:
        path: an extended XYZ file, plain or compressed, or another format that ASE knows.
        keys: keys of energy, forces, stress and virial.
        convention: what a value named spin counts; see `charge_state_from`.
        keep: whether the records keep all keys.

    Raises:
        So3kError: names the frame that cannot be read.
    """
    index = 0
    known = is_xyz(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for atoms in _from_blocks(path) if known else ase.io.iread(str(path), index=":"):
                record, present = _record(atoms, keys, convention, f"{path}, frame {index}")
                yield (record._replace(kept=file_keys(atoms)) if keep else record), present
                index += 1
    except So3kError:
        raise
    except Exception as error:  # ASE's readers raise exceptions of many types
        if not known and isinstance(error, (UnknownFileTypeError, UnicodeDecodeError)):
            raise So3kError(f"{path}: {FOREIGN}") from error
        reason = (
            f"unknown element {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        )
        raise So3kError(
            f"{path}, frame {index}: cannot be read ({' '.join(reason.split())[:200]}); "
            "correct or remove the frame"
        ) from error


def is_xyz(path: Path) -> bool:
    """Whether a file is extended XYZ, by its name or, if the name does not tell, by its content.

    Raises:
        So3kError: a compressed file that cannot be decompressed.
    """
    inner = path.with_suffix("") if is_compressed(path) else path
    if inner.suffix.lower() in (".xyz", ".extxyz"):
        return True
    try:
        return filetype(str(path)) in ("xyz", "extxyz")
    except DAMAGED as error:
        raise So3kError(f"{path}: cannot be decompressed ({error}); fetch it again") from error
    except Exception:  # the reader reports the error
        return False


def _from_blocks(path: Path) -> Iterator[Atoms]:
    """The structures of an extended XYZ file, each parsed separately so that none hides another."""
    for block in read_blocks(path):
        yield from ase.io.iread(io.StringIO("".join(block.lines)), index=":", format="extxyz")


def _record(atoms: Atoms, keys: dict[str, str], convention: str, where: str) -> tuple[Record, list[str]]:
    """The record of one structure."""
    found: dict[str, Any] = dict(atoms.info)
    found |= {name: value for name, value in atoms.arrays.items() if name not in ("numbers", "positions")}
    found |= getattr(atoms.calc, "results", {})
    labels = {label: found[key] for label, key in keys.items() if key in found}
    cell = np.asarray(atoms.cell) if np.any(atoms.cell) else None
    group = atoms.arrays.get("group")
    charge_state = charge_state_from(atoms.info, atoms.arrays.get("fragment"), convention, where)
    used = {label: keys[label] for label in labels}
    record = Record(atoms.numbers, atoms.positions, cell, atoms.pbc, labels, group, charge_state, used)
    return record, sorted(found)


def frames_of(structures: Iterable[Atoms]) -> list[Frame]:
    """ASE structures as frames without labels.

    Raises:
        So3kError: names the structure by its place, from 0.
    """
    return [
        to_frame(_record(atoms, {}, "auto", f"structure {k}")[0], k, "the structures")
        for k, atoms in enumerate(structures)
    ]


def file_keys(atoms: Atoms) -> FileKeys:
    """All values of ASE atoms besides geometry and cell, those of a calculator among them."""
    results = getattr(atoms.calc, "results", {})
    of_atoms = {name: np.asarray(results[name]) for name in per_atom_properties if name in results}
    own = {name: values for name, values in atoms.arrays.items() if name not in ("numbers", "positions")}
    of_frame = {name: value for name, value in results.items() if name not in of_atoms}
    return FileKeys(atoms.info | of_frame, own | of_atoms)


def given_charge_state(atoms: Atoms) -> GivenChargeState:
    """Charge, spin and fragments in the `info` and `arrays` of ASE atoms."""
    return charge_state_from(atoms.info, atoms.arrays.get("fragment"))
