"""Converts units of labels, given by usual names or as quotients such as kcal/mol/Angstrom."""

from typing import NamedTuple

import ase.units

from so3k_md.errors import So3kError

ENERGY_UNITS = {
    "eV": 1.0,
    "meV": 1e-3,
    "kcal/mol": ase.units.kcal / ase.units.mol,
    "kJ/mol": ase.units.kJ / ase.units.mol,
    "Hartree": ase.units.Hartree,
    "Rydberg": ase.units.Rydberg,
}  # eV
LENGTH_UNITS = {"Angstrom": 1.0, "nm": ase.units.nm, "Bohr": ase.units.Bohr}  # Å
DIPOLE_UNITS = {
    "e*Angstrom": 1.0,
    "Debye": ase.units.Debye,
    "e*Bohr": ase.units.Bohr,
    "e*nm": ase.units.nm,
}  # e Å
PRESSURE_UNITS = {
    "GPa": ase.units.GPa,
    "MPa": 1e-3 * ase.units.GPa,
    "Pa": ase.units.Pascal,
    "kbar": 1e3 * ase.units.bar,
    "bar": ase.units.bar,
    "atm": 101325 * ase.units.Pascal,
}  # eV/Å³
ALIASES = {
    "ang": "angstrom",
    "å": "angstrom",
    "a": "angstrom",
    "a0": "bohr",
    "ha": "hartree",
    "eh": "hartree",
    "au": "hartree",
    "ry": "rydberg",
    "d": "debye",
    "e*ang": "e*angstrom",
    "ea": "e*angstrom",
    "e*a0": "e*bohr",
    "ea0": "e*bohr",
}  # lower case
SIGNS = {"ase": 1.0, "opposite": -1.0}


class Units(NamedTuple):
    """The unit of each quantity of a file, in eV and Å; units of stress and virial include the sign."""

    energy: float = 1.0  # eV
    length: float = 1.0  # Å
    forces: float = 1.0  # eV/Å
    stress: float = 1.0  # eV/Å³, of a stress in which tension is positive
    virial: float = 1.0  # eV, of a virial −V stress
    dipole: float = 1.0  # e Å


def energy_unit(name: str) -> float:
    """One unit of energy in eV.

    Raises:
        So3kError: the unit is not known.
    """
    return _look_up(name, ENERGY_UNITS, name, f"choose from {', '.join(ENERGY_UNITS)}")


def length_unit(name: str) -> float:
    """One unit of length in Å.

    Raises:
        So3kError: the unit is not known.
    """
    return _look_up(name, LENGTH_UNITS, name, f"choose from {', '.join(LENGTH_UNITS)}")


def forces_unit(name: str) -> float:
    """One unit of force in eV/Å, from energy/length such as eV/Angstrom, Hartree/Bohr or kJ/mol/nm.

    Raises:
        So3kError: the unit is not known.
    """
    choices = "write an energy over a length, such as eV/Angstrom, Hartree/Bohr, Ry/Bohr, kcal/mol/Angstrom"
    energy, _, length = name.rpartition("/")
    return _look_up(energy, ENERGY_UNITS, name, choices) / _look_up(length, LENGTH_UNITS, name, choices)


def stress_unit(name: str) -> float:
    """One unit of stress in eV/Å³: a pressure, or energy/length³ such as eV/Angstrom^3.

    Raises:
        So3kError: the unit is not known.
    """
    choices = f"choose from {', '.join(PRESSURE_UNITS)}, or write energy/length^3 such as eV/Angstrom^3"
    if "/" not in name:
        return _look_up(name, PRESSURE_UNITS, name, choices)
    energy, _, cube = name.replace("^", "").replace("**", "").replace("³", "3").rpartition("/")
    factor = _look_up(energy, ENERGY_UNITS, name, choices)
    return float(factor / _look_up(cube.removesuffix("3"), LENGTH_UNITS, name, choices) ** 3)


def dipole_unit(name: str) -> float:
    """One unit of dipole moment in e Å.

    Raises:
        So3kError: the unit is not known.
    """
    return _look_up(name, DIPOLE_UNITS, name, f"choose from {', '.join(DIPOLE_UNITS)}")


def is_energy(name: str) -> bool:
    """Whether a unit is one of energy, which a virial has."""
    return _key(name) in {known.lower() for known in ENERGY_UNITS}


def units_of(
    energy: str,
    length: str,
    forces: str | None,
    stress: str | None,
    sign: str,
    dipole: str = "e*Angstrom",
) -> Units:
    """The units of a file from their names.

    Args:
        energy: unit of energies.
        length: unit of lengths.
        forces: unit of forces; None for energy/length.
        stress: unit of stresses, or of virials; None for energy/length³ and energy.
        sign: ase, or opposite where compression is positive in a stress, or tension in a virial.
        dipole: unit of dipole moments.

    Raises:
        So3kError: a unit or the sign is not known.
    """
    if sign not in SIGNS:
        raise So3kError(f"unknown stress_sign '{sign}': choose ase or opposite")
    e, r = energy_unit(energy), length_unit(length)
    of_virial = stress is not None and is_energy(stress)
    of_stress = stress is not None and not of_virial
    return Units(
        energy=e,
        length=r,
        forces=e / r if forces is None else forces_unit(forces),
        stress=SIGNS[sign] * (stress_unit(str(stress)) if of_stress else e / r**3),
        virial=SIGNS[sign] * (energy_unit(str(stress)) if of_virial else e),
        dipole=dipole_unit(dipole),
    )


def same_unit(first: str, second: str) -> bool:
    """Whether two names mean the same unit."""
    return _key(first) == _key(second)


def _key(name: str) -> str:
    lower = name.strip().lower()
    return ALIASES.get(lower, lower)


def _look_up(part: str, known: dict[str, float], whole: str, choices: str) -> float:
    """The value of a unit, or of a part of one."""
    by_name = {name.lower(): value for name, value in known.items()}
    if _key(part) not in by_name:
        raise So3kError(f"unknown unit '{whole}': {choices}")
    return by_name[_key(part)]
