"""Reads the frames of a data file, and converts them once from the stated units."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from so3k_md.data.arrays import read_arrays
from so3k_md.data.frames import LABELS, Frame, list_keys, require_labels, to_frame
from so3k_md.data.keys import holds_virial, is_number, settle_spins, unused_labels
from so3k_md.data.structures import read_structures
from so3k_md.data.units import units_of
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.structure.charges import CONVENTIONS, UNSAID, Spin

# Arguments of `read_frames` that a training file and `eval` pass on.
READING = (
    "energy_key",
    "forces_key",
    "stress_key",
    "dipole_key",
    "charges_key",
    "hirshfeld_ratios_key",
    "energy_unit",
    "length_unit",
    "forces_unit",
    "stress_unit",
    "stress_sign",
    "dipole_unit",
    "spin_convention",
)


def read_frames(
    path: str | Path,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    energy_unit: str = "eV",
    length_unit: str = "Angstrom",
    required: Iterable[str] = (),
    forces_unit: str | None = None,
    stress_unit: str | None = None,
    stress_sign: str = "ase",
    spin_convention: str = "auto",
    dipole_key: str | None = None,
    charges_key: str | None = None,
    hirshfeld_ratios_key: str | None = None,
    dipole_unit: str = "e*Angstrom",
    expected: Iterable[str] = (),
    keep: bool = False,
) -> list[Frame]:
    """Read all frames of an extended XYZ file, another format that ASE knows, or an npz file.

    A key that is not given has its usual name (energy, forces, stress; E and F in npz), and a frame without
    it has no such label. A key that is given must be in the file. Keys that look like labels and are not read
    are listed in a warning.

    Args:
        path: the file.
        energy_key: key of the energy.
        forces_key: key of the forces.
        stress_key: key of the stress (xx yy zz yz xz xy, or 9 numbers) or of the virial; its unit, or else
            its name, determines which.
        energy_unit: eV, meV, kcal/mol, kJ/mol, Hartree or Rydberg.
        length_unit: Angstrom, nm or Bohr.
        required: labels that every frame must have, of energy, forces, stress, dipole, charges and
            hirshfeld_ratios.
        forces_unit: such as eV/Angstrom or Hartree/Bohr; None for energy_unit / length_unit.
        stress_unit: a pressure such as GPa or eV/Angstrom^3, or an energy where the file holds virials; None
            for energy_unit / length_unit³, and energy_unit of virials.
        stress_sign: ase (stress: tension positive; virial: −V stress) or opposite.
        spin_convention: meaning of values named spin: S, unpaired (2 S), multiplicity (2 S + 1), or auto.
        dipole_key: key of the dipole moments of open frames; None to read none.
        charges_key: key of the charges of atoms, e; None to read none.
        hirshfeld_ratios_key: key of the Hirshfeld volumes over those of free atoms; None to read none.
        dipole_unit: e*Angstrom, Debye, e*Bohr or e*nm.
        expected: labels that at least one frame must have.
        keep: whether the frames keep all keys of the file in `kept`.

    Raises:
        So3kError: names file, frame, key and remedy.
    """
    path = Path(path)
    _check_file(path)
    if spin_convention not in ("auto", *CONVENTIONS):
        raise So3kError(f"unknown spin_convention '{spin_convention}': choose auto, {', '.join(CONVENTIONS)}")
    units = units_of(energy_unit, length_unit, forces_unit, stress_unit, stress_sign, dipole_unit)
    asked = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
    asked |= {"dipole": dipole_key, "charges": charges_key, "hirshfeld_ratios": hirshfeld_ratios_key}
    keys = {label: key for label, key in asked.items() if key is not None}
    if stress_key is not None and holds_virial(stress_key, stress_unit):
        keys["virial"] = keys.pop("stress")
    if path.suffix.lower() == ".npz":
        stated = {"energy": energy_unit, "length": length_unit}
        records = read_arrays(path, keys, stated, spin_convention, keep)
    else:
        usual = {
            label: label
            for label in (*LABELS, "virial")
            if stress_key is None or label in ("energy", "forces")
        }
        records = read_structures(path, usual | keys, spin_convention, keep)
    frames, present, labelled = [], set[str](), dict[str, str]()
    for index, (record, names) in enumerate(records):
        frames.append(to_frame(record, index, str(path), units))
        present.update(names)
        labelled.update(record.keys)
    if not frames:
        raise So3kError(f"{path}: holds no frames; give a file with at least one")
    for label, key in keys.items():
        if label not in labelled:
            raise So3kError(
                f"{path}: no frame has the {label} key '{key}'; keys present: {list_keys(present)}"
            )
    required = tuple(required)
    for label in (*required, *expected):
        if label not in labelled and not (label == "stress" and "virial" in labelled):
            raise So3kError(
                f"{path}: no frame has a label for {label}; set {label}_key to one of: {list_keys(present)}"
            )
    require_labels(frames, required)
    named = [label for label, key in asked.items() if key is not None]
    if unused := unused_labels(present, labelled, named):
        warnings.warn(
            f"{path}: {', '.join(unused)} look like labels but "
            f"are not read (read: {', '.join(labelled.values()) or 'none'}): "
            "if one is a label, set energy_key, forces_key or stress_key to it",
            So3kWarning,
            stacklevel=2,
        )
    return _with_spins_settled(frames)


def _check_file(path: Path) -> None:
    """Refuse a path that cannot be a data file."""
    if not path.is_file():
        what = "is a folder, not a data file" if path.is_dir() else "there is no such data file"
        raise So3kError(f"{path}: {what}; check the path")
    if path.stat().st_size == 0:
        raise So3kError(f"{path}: is empty; give a file with at least one frame")


def _with_spins_settled(frames: list[Frame]) -> list[Frame]:
    """Frames in which spins without a convention get the one that fits the whole file, if only one does."""
    unspecified = [
        (frame.charge_state.spin, int(frame.numbers.sum()) - round(float(frame.charge_state.charge or 0)))
        for frame in frames
        if isinstance(frame.charge_state.spin, Spin)
        and frame.charge_state.spin.convention in UNSAID
        and is_number(frame.charge_state.spin.value)
        and (frame.charge_state.charge is None or is_number(frame.charge_state.charge))
        and np.isfinite([frame.charge_state.spin.value, frame.charge_state.charge or 0.0]).all()
    ]
    convention = settle_spins(unspecified) if unspecified else "auto"
    if convention == "auto":
        return frames

    def settled(frame: Frame) -> Frame:
        spin = frame.charge_state.spin
        if not (isinstance(spin, Spin) and spin.convention in UNSAID):
            return frame
        return frame._replace(
            charge_state=frame.charge_state._replace(spin=spin._replace(convention=convention))
        )

    return [settled(frame) for frame in frames]
