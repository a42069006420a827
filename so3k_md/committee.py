"""How far the models of a committee are from each other: deviations of forces and energies."""

from typing import NamedTuple

from torch import Tensor

from so3k_md.errors import So3kError


class Spread(NamedTuple):
    """Largest, smallest and mean of a deviation over the atoms of a structure."""

    max: Tensor
    min: Tensor
    mean: Tensor


def forces_deviation(forces: Tensor) -> Tensor:
    """Deviation of the force on each atom.

    ε_i = √⟨|F_i − ⟨F_i⟩|²⟩, where ⟨…⟩ is the mean over the members

    Args:
        forces: of all members (members, atoms, 3), eV/Å.

    Returns:
        (atoms,), eV/Å, in float64.

    Raises:
        So3kError: fewer than two members.
    """
    differences = from_mean(forces)
    return differences.square().sum(-1).mean(0).sqrt()


def relative_forces_deviation(forces: Tensor, floor: float) -> Tensor:
    """Deviation of the force on each atom, divided by the mean force.

    ε_i / (|⟨F_i⟩| + floor)

    Args:
        forces: of all members (members, atoms, 3), eV/Å.
        floor: positive, eV/Å; keeps the quotient finite where the mean force vanishes.

    Returns:
        (atoms,), without unit, in float64.

    Raises:
        So3kError: fewer than two members, or a floor that is not a positive number.
    """
    if not 0 < floor < float("inf"):
        raise So3kError(f"the floor of relative deviations is {floor} eV/Å: give a positive number")
    return forces_deviation(forces) / (forces.double().mean(0).norm(dim=-1) + floor)


def energy_deviation(energies: Tensor, atoms: Tensor | int) -> Tensor:
    """Deviation of the energy per atom.

    √⟨(E − ⟨E⟩)²⟩ / N

    Args:
        energies: of all members (members,) or (members, structures), eV.
        atoms: number N of atoms, one or (structures,).

    Returns:
        () or (structures,), eV/atom, in float64.

    Raises:
        So3kError: fewer than two members.
    """
    return from_mean(energies).square().mean(0).sqrt() / atoms


def spread(deviations: Tensor) -> Spread:
    """Largest, smallest and mean deviation of the atoms (atoms,) of one structure.

    Raises:
        So3kError: there is no atom.
    """
    if deviations.numel() == 0:
        raise So3kError("a structure without atoms has no deviation of forces")
    return Spread(deviations.max(), deviations.min(), deviations.mean())


def from_mean(values: Tensor) -> Tensor:
    """Differences (members, …) from the mean over the members, in float64.

    Raises:
        So3kError: fewer than two members.
    """
    if values.shape[0] < 2:
        raise So3kError(f"a committee needs at least two models, this one has {values.shape[0]}")
    exact = values.double()
    return exact - exact.mean(0)
