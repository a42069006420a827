"""Determines the groups of non-local attention, by one rule for all engines and data."""

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from so3k_md.errors import So3kError, So3kWarning
from so3k_md.graph import SPHC_TILE, Graph
from so3k_md.needs import Needs

Ints = NDArray[np.int64]

MODES = ("auto", "all")
SPHC_NUMBERS = 6  # numbers that its gradient stores for each of these pairs, in units of F (measured)
FLOAT32 = 4  # bytes
MAX_GROUP = 10_000  # atoms of a group that sphc accepts by default: 1e8 pairs in each layer


def check_mode(groups: str) -> None:
    """Refuse values other than auto and all.

    Raises:
        So3kError: names the value.
    """
    if groups not in MODES:
        raise So3kError(f"groups = {groups!r} is unknown: choose auto or all")


class Grouping(NamedTuple):
    """Which atoms form a group of the non-local attention."""

    group: Ints  # (atoms,), from 0
    linked: bool  # whether the atoms of a group must be unwrapped; otherwise the given images are used


def grouping(
    needs: Needs,
    named: ArrayLike | None,
    n_atoms: int,
    pbc: ArrayLike,
    groups: str,
    where: str,
    max_group: int | None = None,
) -> Grouping:
    """The groups of a structure.

    auto: atoms with equal numbers in `named` are a group; without `named` an open structure is one group.
    all: the whole structure is one group, in the given images; models with waves of the lattice always use
    this. Local models do not use groups.

    Args:
        needs: of the model.
        named: whole numbers (n_atoms,), or None.
        n_atoms: number of atoms.
        pbc: which axes are periodic (3,).
        groups: auto or all.
        where: name of the structure in messages.
        max_group: largest group of sphc, atoms; None for no limit.

    Raises:
        So3kError: an open axis for waves of the lattice, a periodic structure without groups, groups that are
            not one whole number for each atom, or a group that is too large.
    """
    check_mode(groups)
    one = np.zeros(n_atoms, dtype=np.int64)
    if needs.nonlocal_kind == "none":
        return Grouping(one, False)
    linked = images_matter(needs, pbc, where)
    if groups == "all" or lattice_waves(needs):
        check_group_sizes(one, needs, max_group, where)
        return Grouping(one, False)
    if named is not None:
        group = _numbered(np.asarray(named), n_atoms, where)
        check_group_sizes(named, needs, max_group, where)
        return Grouping(group, linked)
    if np.any(pbc):
        raise So3kError(
            f"{where}: is periodic and does not define the groups of the non-local attention: "
            "number the molecules in the array `group` (atoms.arrays['group'], or key group of an npz file), "
            "or choose groups: all"
        )
    check_group_sizes(one, needs, max_group, where)
    return Grouping(one, linked)


def images_matter(needs: Needs, pbc: ArrayLike, where: str) -> bool:
    """Whether it matters in which image the atoms of a group lie.

    It does not in an open structure, nor for waves of the lattice.

    Raises:
        So3kError: waves of the lattice for a structure with an open axis.
    """
    check_axes(needs, pbc, where)
    return bool(np.any(pbc)) and needs.nonlocal_kind != "none" and not lattice_waves(needs)


def lattice_waves(needs: Needs) -> bool:
    """Whether a model uses waves of the reciprocal lattice; then the whole box is one extensive group."""
    return needs.nonlocal_kind == "efa" and needs.max_group_diameter == 0


def announce(needs: Needs, groups: str) -> None:
    """Tell what one group of all atoms means, if the model uses groups.

    Raises:
        So3kError: `groups` is neither auto nor all.
    """
    check_mode(groups)
    if groups != "all" or needs.nonlocal_kind == "none" or lattice_waves(needs):
        return
    warnings.warn(
        "groups: all makes one group of all atoms: the energy is then neither extensive nor separable, and "
        "in a periodic structure it depends on which image of each atom is given",
        So3kWarning,
        stacklevel=3,
    )


def check_axes(needs: Needs, pbc: ArrayLike, where: str) -> None:
    """Refuse open axes for models with waves of the lattice.

    Args:
        needs: of the model.
        pbc: which axes are periodic (3,).
        where: name of the structure in messages.

    Raises:
        So3kError: names the structure and the remedy.
    """
    if lattice_waves(needs) and not np.all(pbc):
        raise So3kError(
            f"{where}: has an open axis, and the model's waves are those of a periodic box (efa_waves: "
            "reciprocal): give it a cell and pbc along all axes, or use a model with efa_waves: lebedev"
        )


def check_group_sizes(group: ArrayLike, needs: Needs, max_group: int | None, where: str) -> None:
    """Refuse groups that are too large for an sphc model, whose time grows with their square.

    Args:
        group: whole numbers, equal within a group (atoms,).
        needs: of the model; kinds other than sphc accept any size.
        max_group: largest group, atoms; None for no limit.
        where: name of the structure in messages.

    Raises:
        So3kError: names the group, its size and cost, and the remedy.
    """
    if needs.nonlocal_kind != "sphc" or max_group is None:
        return
    numbers, sizes = np.unique(np.asarray(group), return_counts=True)
    n = int(sizes.max())
    if n > max_group:
        gib = max(n, SPHC_TILE) * SPHC_NUMBERS * needs.features * FLOAT32 / 2**30
        raise So3kError(
            f"{where}: group {numbers[sizes.argmax()]} has {n} atoms, more than max_group = {max_group}: "
            f"attention in it takes {n * (n - 1):.1e} pairs per layer and {gib:.1g} GiB of memory; raise "
            "max_group if that is intended, make a group of each molecule, or use a model with nonlocal: efa"
        )


def check_reach(model: Any, needs: Needs, graph: Graph, where: str) -> None:
    """Refuse groups that are wider than the range of the waves of an efa model.

    Args:
        model: eager or exported.
        needs: of the model.
        graph: one structure.
        where: name of the structure in messages.

    Raises:
        So3kError: names the structure, the width of its widest group, and the remedy.
    """
    if needs.nonlocal_kind != "efa" or needs.max_group_diameter == 0:
        return
    device = next(model.parameters()).device
    n_groups = int(graph.group.max()) + 1
    reach = model.representation.reach
    widths = reach.diameter(reach.support(graph.positions.to(device), graph.group.to(device), n_groups))
    if (widest := float(widths.max())) > needs.max_group_diameter:
        raise So3kError(
            f"{where}: the group of atom {int((graph.group == widths.argmax().cpu()).nonzero()[0])} is "
            f"{widest:.1f} Å wide, more than efa_reach = {needs.max_group_diameter:.1f} Å of the model: use "
            "smaller groups, or a model with a larger efa_reach"
        )


def _numbered(values: NDArray[Any], n_atoms: int, where: str) -> Ints:
    """Whole numbers renumbered 0 … m − 1 in rising order, or a refusal."""
    if values.shape != (n_atoms,):
        raise So3kError(
            f"{where}: group has shape {values.shape}, expected ({n_atoms},): give each atom one whole number"
        )
    if values.dtype.kind not in "iuf":
        raise So3kError(f"{where}: group contains {str(values[0])[:40]!r}: give each atom a whole number")
    bad = np.flatnonzero(~np.isfinite(values) | (values != np.round(values)))
    if len(bad):
        raise So3kError(
            f"{where}: group of atom {bad[0]} is {values[bad[0]]}: give each atom a whole number, the same "
            "within a molecule"
        )
    return np.unique(values, return_inverse=True)[1].astype(np.int64)
