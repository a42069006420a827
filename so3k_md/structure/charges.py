"""Reads and checks the total charge, the spin and the fragments of a structure."""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from so3k_md.errors import So3kError, So3kWarning
from so3k_md.needs import Needs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EXACT = 1e-6  # e; largest deviation of a total charge from an integer
MOST_ELECTRONS = 2  # for each proton, as in the hydride ion
UNUSED = (
    "the model does not use charge and spin, and ignores those of the structure: the energy is that of the "
    "charge and spin of the training data"
)
CONVENTIONS = ("S", "unpaired", "multiplicity")  # what a spin in a file counts: S, 2 S or 2 S + 1
# Conventions of files that do not state one. The number of electrons decides. If it allows S and 2 S + 1, a
# `spin` is 2 S + 1, as in OMol25 and the ASE calculators for its models, and a `total_spin` is refused, which
# is 2 S + 1 in MACE and S in so3krates-torch.
UNSAID = ("auto", "undecided")


class Spin(NamedTuple):
    """A spin value of a file, and the convention that it follows."""

    value: Any
    convention: str = "auto"  # one of CONVENTIONS or UNSAID

    def unpaired(self) -> dict[str, float]:
        """Unpaired electrons 2 S under each convention that the value may follow."""
        value = float(self.value)
        counts = dict(zip(CONVENTIONS, (2 * value, value, value - 1), strict=True))
        return counts if self.convention in UNSAID else {self.convention: counts[self.convention]}


class GivenChargeState(NamedTuple):
    """Charge, spin and fragments that a user gives, not yet checked; None for what is not given."""

    charge: Any = None  # e; default: the sum of `fragment_charges`, or 0
    spin: Any = None  # S of the structure, or a `Spin`; default: 0, a singlet
    fragment: Any = None  # (n,) whole numbers, equal within a fragment; default: one fragment
    fragment_charges: Any = None  # e, one for each fragment in rising order of its number, or by number


class ChargeState(NamedTuple):
    """Total charge, spin and fragments of one structure, checked."""

    charge: float  # e
    unpaired: float  # unpaired electrons, 2 S
    fragment: Ints  # (n,), from 0
    fragment_charge: Floats  # (fragments,), e; their sum is the charge


def neutral(n_atoms: int) -> ChargeState:
    """A neutral singlet of one fragment."""
    return ChargeState(0.0, 0.0, np.zeros(n_atoms, dtype=np.int64), np.zeros(1))


def says_something(given: GivenChargeState) -> bool:
    """Whether anything other than a neutral singlet of one fragment is given."""
    spin = 0.0 not in given.spin.unpaired().values() if isinstance(given.spin, Spin) else given.spin
    return given.fragment is not None or any(
        value is not None and bool(np.any(np.asarray(value) != 0)) for value in (given.charge, spin)
    )


def refuse_unknown(needs: Needs, given: GivenChargeState, where: str) -> None:
    """Refuse a charge, a spin or fragments for a model that does not use them.

    Args:
        needs: of the model.
        given: values from the user.
        where: for messages.

    Raises:
        So3kError: see above.
    """
    if not needs.has_charge_state and says_something(given):
        raise So3kError(
            f"{where}: charge, spin or fragments are given, but the model does not use them: leave them out"
        )


def combined(options: GivenChargeState, structure: GivenChargeState, where: str) -> GivenChargeState:
    """The values of a structure; for what it does not give, the options for all structures.

    Args:
        options: of the engine, for all structures.
        structure: values of this structure.
        where: for messages.

    Raises:
        So3kError: the two contradict each other.
    """
    for name, wanted, own in zip(GivenChargeState._fields, options, structure, strict=True):
        if wanted is not None and own is not None and not _equal(wanted, own):
            raise So3kError(
                f"{where}: its {name} is {_short(own)}, the option {name} is {_short(wanted)}: correct one, "
                "or leave one out"
            )
    pairs = zip(options, structure, strict=True)
    return GivenChargeState(*(wanted if own is None else own for wanted, own in pairs))


def resolve_charge_state(
    needs: Needs, numbers: ArrayLike, given: GivenChargeState, where: str
) -> ChargeState:
    """The checked total charge, spin and fragments of a structure.

    Args:
        needs: of the model; for one without total charge the result is neutral whatever is given.
        numbers: atomic numbers, (n,).
        given: values from the user.
        where: for messages.

    Raises:
        So3kError: charges that are not whole, do not add up, leave an odd number of electrons to a singlet,
            or fewer than none; spins that the model was not trained for; fragments without charges.
    """
    n_atoms = np.size(numbers)
    if not needs.has_charge_state:
        return neutral(n_atoms)
    charge = None if given.charge is None else _number(given.charge, "charge", where)
    fragment_index, charges = _fragments(n_atoms, given.fragment, given.fragment_charges, where)
    if charges is None:
        charges = np.array([charge or 0.0])
    total = float(charges.sum())
    if charge is not None and abs(charge - total) > EXACT:
        raise So3kError(
            f"{where}: the fragment charges add up to {total:+g} e, the total charge is {charge:+g} e: "
            "correct one"
        )
    wrong = np.flatnonzero(np.abs(charges - np.round(charges)) > EXACT)
    if len(wrong):
        raise So3kError(
            f"{where}: a charge of {charges[wrong[0]]:+g} e is not a whole number: give charges of whole "
            "ions or molecules"
        )
    unpaired = unpaired_electrons(given.spin, int(np.sum(numbers)) - round(total), where)
    _check_electrons(needs, int(np.sum(numbers)), round(total), unpaired, where)
    _check_fragment_electrons(needs, np.asarray(numbers), fragment_index, np.round(charges), where)
    return ChargeState(float(np.round(total)), unpaired, fragment_index, np.round(charges))


def spin_readings(spin: Spin, electrons: int) -> dict[str, float]:
    """Unpaired electrons under each convention that the number of electrons allows.

    The number of unpaired electrons 2 S has the parity of the number of electrons, the multiplicity 2 S + 1
    the other one.

    Args:
        spin: a finite number.
        electrons: of the structure.
    """
    counts = spin.unpaired()
    allowed = {name: n for name, n in counts.items() if n >= 0 and (electrons - n) % 2 == 0}
    return allowed if spin.convention in UNSAID else counts


def unpaired_electrons(spin: Any, electrons: int, where: str) -> float:
    """Unpaired electrons 2 S of a structure.

    A `spin` that the number of electrons allows as S and as 2 S + 1 is the latter, with a warning.

    Args:
        spin: S, a `Spin`, or None for a singlet.
        electrons: of the structure.
        where: for messages.

    Raises:
        So3kError: not a number, or one that may mean two things.
    """
    if spin is None:
        return 0.0
    if not isinstance(spin, Spin):
        return 2.0 * _number(spin, "spin", where)
    _number(spin.value, "spin", where)
    readings = spin_readings(spin, electrons)
    if len(set(readings.values())) > 1 and spin.convention == "auto" and "multiplicity" in readings:
        warnings.warn(
            f"spin = {spin.value} of structures with an even number of electrons is read as the multiplicity "
            "2 S + 1: give multiplicity, unpaired_electrons or spin_quantum_number instead to say which, "
            "or set spin_convention where a file is read",
            So3kWarning,
            stacklevel=2,
        )
        return readings["multiplicity"]
    if len(set(readings.values())) > 1:
        meanings = {"S": "S", "unpaired": "the number of unpaired electrons", "multiplicity": "2 S + 1"}
        raise So3kError(
            f"{where}: spin = {spin.value} with {electrons} electrons may be "
            f"{' or '.join(meanings[name] for name in readings)}: give it as multiplicity or "
            "unpaired_electrons instead, or set spin_convention where a file is read"
        )
    # if no convention fits, the message shows the number as S, which is the documented meaning
    return next(iter(readings.values()), 2.0 * float(spin.value))


def _check_electrons(needs: Needs, protons: int, charge: int, unpaired: float, where: str) -> None:
    """Refuse impossible charges, and spins that the electrons or the training of the model exclude."""
    electrons = protons - charge
    if not 0 <= electrons <= MOST_ELECTRONS * protons:
        raise So3kError(
            f"{where}: a charge of {charge:+g} e would leave {electrons:g} electrons to nuclei of "
            f"{protons:+g} e: correct the charge"
        )
    if unpaired < 0 or unpaired != round(unpaired):
        raise So3kError(f"{where}: spin = {unpaired / 2:g} is impossible: give 0, 0.5, 1, ...")
    if needs.singlets_only and unpaired:
        raise So3kError(
            f"{where}: spin = {unpaired / 2:g}, but the model was trained on singlets only: set spin to 0"
        )
    if (electrons - unpaired) % 2 or unpaired > electrons:
        raise So3kError(
            f"{where}: {electrons} electrons cannot have {unpaired:g} unpaired ones: correct charge or spin"
        )


def _check_fragment_electrons(
    needs: Needs, numbers: Ints, fragment_index: Ints, charges: Floats, where: str
) -> None:
    """`_check_electrons` for fragments; their spins are known only if the model accepts singlets only."""
    if len(charges) < 2:
        return
    protons = np.bincount(fragment_index, weights=numbers)
    electrons = protons - charges
    wrong = (electrons < 0) | (electrons > MOST_ELECTRONS * protons)
    if needs.singlets_only:
        wrong |= electrons % 2 == 1
    if wrong.any():
        worst = int(wrong.argmax())
        name = f"{where}: the fragment of atom {int((fragment_index == worst).argmax())}"
        _check_electrons(needs, int(protons[worst]), int(charges[worst]), 0.0, name)


def _fragments(
    n_atoms: int, fragment: ArrayLike | None, charges: ArrayLike | Mapping[int, float] | None, where: str
) -> tuple[Ints, Floats | None]:
    """Fragments numbered from 0 and their charges; no charges for one fragment of unknown charge."""
    if fragment is None and charges is None:
        return np.zeros(n_atoms, dtype=np.int64), None
    if fragment is None or charges is None:
        has, lacks = (
            ("fragment_charges", "fragment") if fragment is None else ("fragment", "fragment_charges")
        )
        raise So3kError(f"{where}: has {has} but no {lacks}: give both, or neither for one fragment")
    names = np.asarray(fragment)
    if names.shape != (n_atoms,) or names.dtype.kind not in "iu":
        raise So3kError(
            f"{where}: fragment must be one whole number per atom, not {names.dtype} {names.shape}"
        )
    known, fragment_index = np.unique(names, return_inverse=True)
    if isinstance(charges, Mapping):
        charges = by_number(charges)
        if unknown := set(charges) - set(known.tolist()):
            raise So3kError(
                f"{where}: fragment_charges names fragment {min(unknown, key=str)}, which no atom has: "
                "correct it"
            )
        missing = [int(name) for name in known if int(name) not in charges]
        if missing:
            raise So3kError(f"{where}: fragment {missing[0]} has no charge: add it to fragment_charges")
        charges = [charges[int(name)] for name in known]
    values = np.atleast_1d(np.asarray(charges))
    if values.shape != known.shape or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise So3kError(
            f"{where}: fragment_charges must be {len(known)} numbers, one for each fragment in rising order, "
            f"not {str(charges)[:60]}"
        )
    return fragment_index.astype(np.int64), values.astype(np.float64)


def by_number(charges: Mapping[Any, float]) -> dict[Any, float]:
    """Charges by the numbers of fragments, which extended XYZ stores as text."""
    return {
        int(key) if isinstance(key, str) and key.lstrip("-").isdigit() else key: charge
        for key, charge in charges.items()
    }


def _number(value: Any, name: str, where: str) -> float:
    """A finite number, or a refusal."""
    try:
        number = float(np.asarray(value, dtype=np.float64).item())
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise So3kError(f"{where}: {name} = {_short(value)} is not a number: correct it")
    return number


def _equal(one: Any, other: Any) -> bool:
    """Whether two values that a user gave are the same."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return by_number(one) == by_number(other)
    if isinstance(other, Spin) and not isinstance(one, Spin):
        return 2 * one in other.unpaired().values()
    return np.array_equal(np.asarray(one), np.asarray(other))


def _short(value: Any) -> str:
    """A value as short text for a message."""
    text = " ".join(str(value).split()) if isinstance(value, np.ndarray) else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
