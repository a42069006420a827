"""Finds values that suggest other units than stated, before a model is trained on them."""

from collections.abc import Iterator, Sequence

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from so3k_md.data.frames import EV_ANGSTROM, Frame
from so3k_md.data.units import ENERGY_UNITS, LENGTH_UNITS, Units
from so3k_md.data.work import work_over_rise
from so3k_md.structure.bonds import covalent_radii

Floats = NDArray[np.float64]

MOST_FRAMES = 200  # number of frames that are checked, evenly distributed over the file
MOST_ATOMS = 50  # number of atoms of a frame whose distances are checked
# Bonds to hydrogen: atomic number of the heavy atom, shortest and longest length, Å.
STRETCHES = ((6, 1.02, 1.18), (7, 0.94, 1.11), (8, 0.90, 1.05))
FORCE_CONSTANTS = {6: 33.0, 7: 42.0, 8: 42.0}  # force constant by atomic number of the heavy atom, eV/Å²
LEAST_CORRELATION = 0.92  # smallest correlation of force and length for a reliable force constant
LARGE_FORCE = 20.0  # eV/Å; medians of usual data are smaller
LARGE_STRESS = 0.7  # eV/Å³ = 112 GPa
COMMON_FORCES = (
    "eV/Angstrom",
    "Hartree/Bohr",
    "Rydberg/Bohr",
    "Hartree/Angstrom",
    "kcal/mol/Angstrom",
    "kJ/mol/nm",
    "kJ/mol/Angstrom",
    "meV/Angstrom",
    "eV/nm",
)
NOBLE_GASES = (2, 10, 18, 36, 54, 86)


def unit_doubts(frames: Sequence[Frame], units: Units = EV_ANGSTROM) -> list[str]:
    """Sentences about values that are unusual in eV and Å, each with the unit that would explain them.

    Args:
        frames: as read, converted from the stated units to eV and Å.
        units: the stated units.
    """
    chosen = [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, MOST_FRAMES).astype(int))]
    return [
        *_lengths(chosen),
        *_forces(chosen, units.forces),
        *_energies(chosen, units.energy),
        *_work(frames),
        *_stresses(chosen),
    ]


def _lengths(frames: Sequence[Frame]) -> Iterator[str]:
    """Doubts from the distance of nearest atoms over the sum of their covalent radii, usually 0.9 to 1.2."""
    ratios = []
    for frame in frames:
        rows = _sample(np.flatnonzero(~np.isin(frame.numbers, NOBLE_GASES)))
        if len(frame.numbers) > 2 and len(rows):  # diatomic molecules are often dissociated on purpose
            distance = np.linalg.norm(_vectors(frame, rows, np.arange(len(frame.numbers))), axis=2)
            distance[np.arange(len(rows)), rows] = np.inf
            near = distance.argmin(axis=1)
            radii = covalent_radii(frame.numbers)
            ratios.append(distance.min(axis=1) / (radii[rows] + radii[near]))
    ratio = float(np.median(np.concatenate(ratios))) if ratios else 1.0
    if not 0.65 < ratio < 1.7:
        guess = "nm" if ratio < 0.3 else "Bohr" if 1.7 < ratio < 2.2 else "Angstrom"
        yield (
            f"nearest atoms are {ratio:.2f} times the sum of covalent radii apart, not 0.9 to 1.2 as usual "
            f"(length_unit: {guess}?)"
        )


def _forces(frames: Sequence[Frame], stated: float) -> Iterator[str]:
    """Doubts from force constants of X–H bonds, or, if these are not known, from the size of the forces."""
    for heavy, shortest, longest in STRETCHES:
        lengths, forces_along = _stretch(frames, heavy, shortest, longest)
        if len(lengths) < 20 or lengths.std() < 0.01 or forces_along.std() == 0:
            continue
        if abs(np.corrcoef(lengths, forces_along)[0, 1]) < LEAST_CORRELATION:
            continue
        ratio = -float(np.polyfit(lengths, forces_along, 1)[0]) / FORCE_CONSTANTS[heavy]
        if ratio < -0.3:
            yield "forces lengthen long bonds to hydrogen (gradients? change their sign in the file)"
        elif not 0.62 < ratio < 1.6:
            yield (
                f"the force constant of {chemical_symbols[heavy]}-H bonds is "
                f"{ratio * FORCE_CONSTANTS[heavy]:.3g} eV/Å², not {FORCE_CONSTANTS[heavy]:.0f} as usual "
                f"(forces_unit{_name_force(stated / abs(ratio))})"
            )
        return
    sizes = [np.linalg.norm(f.forces, axis=1) for f in frames if f.forces is not None and len(f.numbers) > 1]
    median = float(np.median(np.concatenate(sizes))) if sizes else 0.0
    if median > LARGE_FORCE:
        yield f"the median force on an atom is {median:.3g} eV/Å (forces_unit?)"


def _stretch(frames: Sequence[Frame], heavy: int, shortest: float, longest: float) -> tuple[Floats, Floats]:
    """Lengths of bonds from a heavy atom to hydrogen, and the forces on hydrogen along them."""
    lengths, forces_along = [], []
    for frame in frames:
        if frame.forces is None:
            continue
        hydrogens = _sample(np.flatnonzero(frame.numbers == 1))
        others = np.flatnonzero(frame.numbers != 1)
        if not len(hydrogens) or not len(others):
            continue
        vectors = _vectors(frame, hydrogens, others)
        distance = np.linalg.norm(vectors, axis=2)
        near = distance.argmin(axis=1)
        rows = np.arange(len(hydrogens))
        length = distance[rows, near]
        bonded = (frame.numbers[others[near]] == heavy) & (length > shortest) & (length < longest)
        along = (frame.forces[hydrogens] * vectors[rows, near]).sum(axis=1) / np.maximum(length, 1e-9)
        lengths.append(length[bonded])
        forces_along.append(along[bonded])
    if not lengths:
        return np.zeros(0), np.zeros(0)
    return np.concatenate(lengths), np.concatenate(forces_along)


def _energies(frames: Sequence[Frame], stated: float) -> Iterator[str]:
    """Doubts from the ratio of the energies to all-electron energies of free atoms, if a unit explains it."""
    ratios = [
        frame.energy / _free_atoms(frame.numbers)
        for frame in frames
        if frame.energy is not None and frame.numbers.max() <= 36
    ]
    ratio = float(np.median(ratios)) if ratios else 1.0
    for name in ("eV", "Hartree", "kcal/mol", "kJ/mol", "meV"):
        # whether the values, read in the stated unit, would be total energies in this one
        if ENERGY_UNITS[name] != stated and 0.98 < ratio * ENERGY_UNITS[name] / stated < 1.05:
            yield f"energies are {ratio:.4g} times those of free atoms (energy_unit: {name}?)"


def _free_atoms(numbers: NDArray[np.int64]) -> float:
    """Energy of free atoms, eV, by Thomas, Fermi and Scott, within 1 % from carbon on.

    E = −0.768745 Z^7/3 + Z²/2 − 0.269900 Z^5/3 Hartree for each atom.
    """
    z = numbers.astype(np.float64)
    hartree = -0.768745 * z ** (7 / 3) + 0.5 * z * z - 0.269900 * z ** (5 / 3)
    return float(hartree.sum()) * ENERGY_UNITS["Hartree"]


def _work(frames: Sequence[Frame]) -> Iterator[str]:
    """Doubts from the ratio of work and energy difference; a ratio near 1 needs a smaller standard error."""
    found = work_over_rise(frames)
    if found is None or found.error > 0.25 * abs(found.value):
        return
    clear = not 0.25 < found.value < 4.0 and abs(found.correlation) > 0.6
    certain = not 0.7 < found.value < 1.4 and abs(found.correlation) > 0.97 and found.error < 0.05
    if found.value < 0 and abs(found.correlation) > 0.6:
        yield "energies rise along the forces (gradients? change their sign in the file)"
    elif clear or certain:
        yield (
            f"the work against the forces is {found.value:.3g} ± {found.error:.1g} times the energy "
            "difference (forces_unit or energy_unit?)"
        )


def _stresses(frames: Sequence[Frame]) -> Iterator[str]:
    """Doubts from the size of the stress."""
    stresses = [(np.abs(f.stress).max(), f.volume or 1.0) for f in frames if f.stress is not None]
    if not stresses:
        return
    size, volume = np.median(np.array(stresses), axis=0)
    if size > LARGE_STRESS:
        guess = "GPa, or eV of virials" if size / volume < LARGE_STRESS / 10 else "kbar or GPa"
        yield f"stresses are {size:.3g} eV/Å³ = {size / 0.00624150907:.3g} GPa (stress_unit: {guess}?)"


def _name_force(value: float) -> str:
    """The unit of force closest to a value in eV/Å, if one is close."""
    known = {
        f"{energy}/{length}": e / r
        for energy, e in ENERGY_UNITS.items()
        for length, r in LENGTH_UNITS.items()
    }
    name = min(COMMON_FORCES, key=lambda unit: abs(np.log(known[unit] / value)))
    return f": {name}?" if abs(np.log(known[name] / value)) < 0.3 else "?"


def _sample(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """A bounded number of atoms, evenly distributed."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, MOST_ATOMS).astype(int))] if len(rows) else rows


def _vectors(frame: Frame, rows: NDArray[np.int64], others: NDArray[np.int64]) -> Floats:
    """Vectors from the others to the rows (rows, others, 3), Å, by the minimum image convention."""
    vectors = frame.positions[rows][:, None] - frame.positions[others]
    if frame.cell is not None and frame.pbc.any():
        cell = np.where(frame.pbc[:, None], frame.cell, 0.0)
        vectors = vectors - np.round(vectors @ np.linalg.pinv(cell)) @ cell
    return np.asarray(vectors)
