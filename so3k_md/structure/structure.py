"""Checks a structure once, with the same checks for all engines and data."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from so3k_md.errors import So3kError
from so3k_md.graph import COULOMB
from so3k_md.needs import Needs
from so3k_md.structure.cells import check_cell
from so3k_md.structure.charges import ChargeState, GivenChargeState, resolve_charge_state
from so3k_md.structure.coulomb import check_periodicity
from so3k_md.structure.elements import check_elements
from so3k_md.structure.groups import grouping
from so3k_md.structure.pairs import finite_positions, full_rank

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NOTHING = GivenChargeState()


class Structure(NamedTuple):
    """Atoms, lattice, groups, total charge and spin, checked; from `checked` or `moved`."""

    numbers: Ints  # (n,), atomic numbers
    positions: Floats  # (n, 3), Å, finite, in any image
    lattice: Floats  # (3, 3), rows, Å, of full rank: unit vectors at right angles in the rows of open axes
    pbc: NDArray[np.bool_]  # (3,)
    group: Ints  # (n,), from 0; non-local attention acts within a group
    linked: bool  # whether the atoms of a group must be unwrapped
    charge_state: ChargeState  # charge, spin and fragments
    coulomb: str  # form of the Coulomb energy, one of COULOMB
    where: str  # name of the structure in messages


def checked(
    needs: Needs,
    numbers: ArrayLike,
    positions: ArrayLike,
    cell: ArrayLike | None,
    pbc: ArrayLike,
    *,
    where: str,
    remedy: str | None = None,
    group: ArrayLike | None = None,
    groups: str = "auto",
    max_group: int | None = None,
    charge_state: GivenChargeState = NOTHING,
    coulomb: str = COULOMB[0],
) -> Structure:
    """A `Structure` that the model accepts, or a refusal that names the source of the structure.

    Args:
        needs: of the model.
        numbers: atomic numbers (n,).
        positions: in any image, (n, 3), Å; copied.
        cell: rows are the lattice vectors (3, 3), Å, rows of open axes are ignored; None for no cell.
        pbc: which axes are periodic (3,), or one flag for all.
        where: name of the structure in messages.
        remedy: how the user gives another cell; None if the cell was already compared with the atoms.
        group: see `grouping`.
        groups: see there.
        max_group: see there.
        charge_state: given charge, spin and fragments.
        coulomb: form of the Coulomb energy, one of COULOMB.

    Raises:
        So3kError: no atoms, lengths that do not fit, an element that the model does not know, a position that
            is not finite, a cell, groups, or charges that cannot be.
    """
    z = np.array(numbers, dtype=np.int64).reshape(-1)
    if not len(z):
        raise So3kError(f"{where} has no atoms: nothing can be calculated")
    if needs.elements:
        with named(where):
            check_elements(z.tolist(), needs.elements)
    points = places(positions, len(z), where)
    if remedy is not None and cell is not None:
        check_cell(z, cell, pbc, where, remedy)
    with named(where):
        lattice, periodic = full_rank(cell, pbc)
    found = grouping(needs, group, len(z), periodic, groups, where, max_group)
    check_periodicity(needs, periodic, coulomb, where)
    total = resolve_charge_state(needs, z, charge_state, where)
    return Structure(z, points, lattice, periodic, *found, total, coulomb, where)


def moved(structure: Structure, positions: ArrayLike) -> Structure:
    """The same atoms at other positions (n, 3), Å, which are copied.

    Raises:
        So3kError: a position is not finite.
    """
    return structure._replace(positions=places(positions, len(structure.numbers), structure.where))


def places(positions: ArrayLike, n_atoms: int, where: str) -> Floats:
    """A copy of finite positions (n_atoms, 3), Å.

    Raises:
        So3kError: names the structure and the atom.
    """
    points = np.array(positions, dtype=np.float64)
    if points.shape != (n_atoms, 3):
        raise So3kError(f"{where}: positions have shape {points.shape}: give ({n_atoms}, 3), in Å")
    with named(where):
        return finite_positions(points)


@contextmanager
def named(where: str) -> Iterator[None]:
    """Adds the name of the structure to each `So3kError` raised within."""
    try:
        yield
    except So3kError as error:
        raise So3kError(f"{where}: {error}") from error
