"""From a file to frames, with its units stated once and converted once."""

from collections.abc import Iterable
from pathlib import Path

from so3k_md.data.arrays import read_arrays
from so3k_md.data.frames import (
    ENERGY_UNITS,
    LABELS,
    LENGTH_UNITS,
    Frame,
    list_keys,
    require_labels,
    to_frame,
    unit_factor,
)
from so3k_md.data.structures import read_structures
from so3k_md.errors import So3kError


def read_frames(
    path: str | Path,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    energy_unit: str = "eV",
    length_unit: str = "Angstrom",
    required: Iterable[str] = (),
) -> list[Frame]:
    """Read all frames of an extended XYZ file, another format that ASE knows, or an npz file.

    A key that is not given has its usual name (energy, forces, stress; E and F in npz), and a frame without
    it has no such label. A key that is given must be in the file. A stress key with "virial" in its name
    holds a virial.

    Args:
        path: the file.
        energy_key: key of the energy.
        forces_key: key of the forces.
        stress_key: key of the stress (xx yy zz yz xz xy, or 9 numbers; positive = tension) or of the virial.
        energy_unit: eV, meV, kcal/mol, kJ/mol, Hartree or Rydberg; forces are in energy_unit / length_unit.
        length_unit: Angstrom, nm or Bohr.
        required: labels that every frame must have, of energy, forces, stress.

    Raises:
        So3kError: names file, frame, key and remedy.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a data file" if path.is_dir() else "there is no such data file"
        raise So3kError(f"{path}: {what}; check the path")
    if path.stat().st_size == 0:
        raise So3kError(f"{path}: is empty; give a file with at least one frame")
    factors = unit_factor(energy_unit, ENERGY_UNITS), unit_factor(length_unit, LENGTH_UNITS)
    asked = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
    keys = {label: key for label, key in asked.items() if key is not None}
    if stress_key is not None and "virial" in stress_key.lower():
        keys["virial"] = keys.pop("stress")
    if path.suffix.lower() == ".npz":
        records = read_arrays(path, keys, {"energy": energy_unit, "length": length_unit})
    else:
        usual = {
            label: label
            for label in (*LABELS, "virial")
            if stress_key is None or label in ("energy", "forces")
        }
        records = read_structures(path, usual | keys)
    frames, present, labelled = [], set[str](), set[str]()
    for index, (record, names) in enumerate(records):
        frames.append(to_frame(record, index, str(path), *factors))
        present.update(names)
        labelled.update(record.labels)
    if not frames:
        raise So3kError(f"{path}: holds no frames; give a file with at least one")
    for label, key in keys.items():
        if label not in labelled:
            raise So3kError(
                f"{path}: no frame has the {label} key '{key}'; keys present: {list_keys(present)}"
            )
    for label in required:
        if label not in labelled and not (label == "stress" and "virial" in labelled):
            raise So3kError(
                f"{path}: no frame has a label for {label}; set {label}_key to one of: {list_keys(present)}"
            )
    require_labels(frames, required)
    return frames
