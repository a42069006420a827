"""The meaning of keys in data files: labels, charge and spin under the names that programs use."""

import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from so3k_md.data.units import is_energy
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.structure.charges import (
    CONVENTIONS,
    UNSAID,
    GivenChargeState,
    Spin,
    spin_readings,
    unpaired_electrons,
)

# The total charge: charge of ASE and OMol25, total_charge of MACE and so3krates-torch, and others.
CHARGE = ("charge", "total_charge", "net_charge", "tot_charge", "molecular_charge", "formal_charge")
# Names that do not state what they count: OMol25's spin and MACE's total_spin are multiplicities,
# so3krates-torch's total_spin is S, others count unpaired electrons.
SPIN = ("spin", "total_spin")
SPINS = {
    "multiplicity": "multiplicity",
    "spin_multiplicity": "multiplicity",
    "mult": "multiplicity",
    "num_unpaired_electrons": "unpaired",
    "unpaired_electrons": "unpaired",
    "n_unpaired": "unpaired",
    "uhf": "unpaired",
    "spin_quantum_number": "S",
}
# Keys that look like labels: of the energy, the forces, the stress, or of quantities that are not read.
LIKE_LABELS = {
    "energy": re.compile(r"energ|(^|_)e($|_)", re.I),
    "forces": re.compile(r"force|grad|(^|_)f($|_)", re.I),
    "stress": re.compile(r"stress|virial|sigma|pressure|(^|_)vir($|_)", re.I),
    "other": re.compile(r"dipole|(?<!nuclear_)charge|spin|multiplicity", re.I),
}
# Keys of properties that engines read from a structure besides its geometry.
CHARGE_STATE = (*SPIN, "fragment_charges", *CHARGE, *SPINS)
MODEL_KEYS = {"group", "fragment", *CHARGE_STATE}
# Label -> keys that ASE writes in addition to it.
DERIVED = {"energy": {"energies", "free_energy"}, "stress": {"stresses"}}


def holds_virial(key: str, unit: str | None) -> bool:
    """Whether the values under a key are virials, by their unit or else by their name.

    Raises:
        So3kError: neither unit nor name tells stress from virial.
    """
    words = key.lower()
    if unit is not None:
        return is_energy(unit)
    stress, virial = "stress" in words or "sigma" in words, bool(re.search(r"vir(ial|$|[_s])|^w$", words))
    if stress == virial:
        raise So3kError(
            f"the key '{key}' does not say whether it is a stress or a virial: set stress_unit, to a "
            "pressure (eV/Angstrom^3, GPa, kbar) for a stress or to an energy (eV) for a virial"
        )
    return virial


def charge_state_from(
    values: Mapping[str, Any], fragment: Any, convention: str = "auto", where: str = "the structure"
) -> GivenChargeState:
    """Charge, spin and fragments under any of their names.

    Args:
        values: properties of a structure by name, such as `Atoms.info`.
        fragment: of each atom, or None.
        convention: what a value named `spin` or `total_spin` counts: S, unpaired (2 S), multiplicity
            (2 S + 1), or auto.
        where: name of the structure in messages.

    Raises:
        So3kError: two names of the charge or of the spin contradict each other.
    """
    if values.keys().isdisjoint(CHARGE_STATE):  # the usual case, asked at each step of a simulation
        return GivenChargeState(fragment=fragment)
    charges = {name: values[name] for name in CHARGE if is_number(values.get(name))}
    spins = {name: Spin(values[name], kind) for name, kind in SPINS.items() if is_number(values.get(name))}
    unpaired = {name: unpaired_electrons(spin, 0, where) for name, spin in spins.items()}
    both: tuple[dict[str, Any], ...] = charges, unpaired
    for counts in both:
        first = next(iter(counts), "")
        for name, count in counts.items():
            if name != first and count != counts[first]:
                raise So3kError(f"{where}: {first} and {name} contradict each other: remove one of them")
    charge = next(iter(charges.values()), values.get("charge"))
    spin = next(iter(spins.values()), None)
    unspecified = next((name for name in SPIN if values.get(name) is not None), None)
    if spin is None and unspecified is not None:
        doubtful = convention == "auto" and unspecified == "total_spin"
        spin = Spin(values[unspecified], "undecided" if doubtful else convention)
    return GivenChargeState(charge, spin, fragment, values.get("fragment_charges"))


def settle_spins(spins: Iterable[tuple[Spin, int]]) -> str:
    """The convention of values named spin in one file, as far as all of them together determine it.

    Args:
        spins: each with the number of electrons of its structure.

    Returns:
        The one convention that fits all, or auto.
    """
    fitting = set(CONVENTIONS)
    for spin, electrons in spins:
        fitting &= set(spin_readings(spin, electrons))
    return fitting.pop() if len(fitting) == 1 else "auto"


def is_number(value: Any) -> bool:
    """Whether a value is one number."""
    return value is not None and np.size(value) == 1 and np.asarray(value).dtype.kind in "fiu"


def unused_labels(present: Iterable[str], used: Mapping[str, str], named: Iterable[str]) -> list[str]:
    """Keys that look like labels but are not used, and that the user may have meant.

    Args:
        present: keys of the file.
        used: keys that were read, by label.
        named: those of energy, forces and stress whose key the user gave, so that there is no doubt.
    """
    doubtful = [pattern for label, pattern in LIKE_LABELS.items() if label not in set(named)]
    derived = {name for label, names in DERIVED.items() if label in used for name in names}
    names = set(present) - MODEL_KEYS - derived - set(used.values())
    return sorted(name for name in names if any(pattern.search(name) for pattern in doubtful))


def warn_unused_charge_state(frames: Iterable[Any], used: bool) -> None:
    """Warn of frames with charges or unpaired electrons that the model does not use.

    Args:
        frames: with `charge_state` and `where`.
        used: whether the model uses total charge and spin.
    """
    for frame in () if used else frames:
        charge, spin = frame.charge_state.charge, frame.charge_state.spin
        if is_number(charge) and float(charge) != 0:
            warnings.warn(
                f"{frame.where}: has the total charge {float(charge):+g} e, but the model does not use "
                "charges: its predictions are the same for all charges (model.charge_embedding uses them)",
                So3kWarning,
                stacklevel=3,
            )
            return
        stated = isinstance(spin, Spin) and spin.convention not in UNSAID and is_number(spin.value)
        if stated and unpaired_electrons(spin, 0, frame.where) > 1:
            warnings.warn(
                f"{frame.where}: has {unpaired_electrons(spin, 0, frame.where):g} unpaired electrons, but "
                "the model does not use spins: its predictions are the same for all spins "
                "(model.spin_embedding uses them)",
                So3kWarning,
                stacklevel=3,
            )
            return
