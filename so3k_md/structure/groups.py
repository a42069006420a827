"""Groups: the atoms within which attention acts beyond the cutoff, and the links that hold each together."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from so3k_md.errors import So3kError, So3kWarning
from so3k_md.graph import Graph
from so3k_md.structure.pairs import full_rank, neighbor_pairs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MODES = ("auto", "all")
MAX_GROUP = 10_000  # atoms of a group that sphc accepts unasked: 1e8 pairs a layer
FAR_TILE = 32768  # pairs that a layer holds at a time
FAR_NUMBERS = 6  # numbers that the gradient holds for a far pair, in units of F (measured)
LINK = 3.0  # Å; longer than bonds, so that links up to here connect nearly every molecule


def check_mode(groups: str) -> None:
    """Refuse what is neither auto nor all.

    Raises:
        So3kError: names the value.
    """
    if groups not in MODES:
        raise So3kError(f"groups = {groups!r} is unknown: choose auto or all")


def resolve_groups(array: ArrayLike | None, n_atoms: int, periodic: bool, groups: str, where: str) -> Ints:
    """The group of each atom, numbered from 0.

    auto: atoms with equal numbers in `array` are a group; without it an open structure is one group. all: the
    whole structure is one group.

    Args:
        array: whole numbers (n_atoms,), or None.
        n_atoms: number of atoms.
        periodic: whether any axis is.
        groups: auto or all.
        where: what to call the structure in messages.

    Returns:
        (n_atoms,).

    Raises:
        So3kError: a periodic structure without groups, or groups that are not one whole number for each atom.
    """
    check_mode(groups)
    if groups == "all":
        warn_of_all()
    elif array is not None:
        return _numbered(np.asarray(array), n_atoms, where)
    elif periodic:
        raise So3kError(
            f"{where}: is periodic, and nothing says which atoms form a group of the non-local attention: "
            "number the molecules in the array `group` (atoms.arrays['group'], or key group of an npz file), "
            "or choose groups: all"
        )
    return np.zeros(n_atoms, dtype=np.int64)


def lattice_waves(needs: Any) -> bool:
    """Whether a model's waves are those of a periodic box, which as a whole is then one extensive group.

    Args:
        needs: of the model.
    """
    return needs.nonlocal_kind == "efa" and needs.far_reach == 0


def warn_of_all() -> None:
    """Say what one group of all atoms means."""
    warnings.warn(
        "groups: all makes one group of all atoms: the energy is then neither extensive nor separable, and "
        "in a periodic structure it depends on which image of each atom is given",
        So3kWarning,
        stacklevel=3,
    )


def check_axes(needs: Any, pbc: ArrayLike, where: str) -> None:
    """Refuse open axes where the waves of a model are those of the lattice.

    Args:
        needs: of the model.
        pbc: which axes are periodic (3,).
        where: what to call the structure in messages.

    Raises:
        So3kError: names the structure and the remedy.
    """
    if lattice_waves(needs) and not np.all(pbc):
        raise So3kError(
            f"{where}: has an open axis, and the model's waves are those of a periodic box (efa_waves: "
            "reciprocal): give it a cell and pbc along all axes, or use a model with efa_waves: lebedev"
        )


def check_group_sizes(
    group: ArrayLike, needs: Any, max_group: int = MAX_GROUP, element_size: int = 4
) -> None:
    """Refuse groups whose quadratic cost in an sphc model is hardly meant; other models accept any.

    Args:
        group: whole numbers, equal within a group (atoms,).
        needs: of the model.
        max_group: largest group, atoms.
        element_size: bytes of a number of the model.

    Raises:
        So3kError: names the group, its size and cost, and the remedy.
    """
    if needs.nonlocal_kind != "sphc":
        return
    numbers, sizes = np.unique(np.asarray(group), return_counts=True)
    n = int(sizes.max())
    if n > max_group:
        gib = max(n, FAR_TILE) * FAR_NUMBERS * needs.features * element_size / 2**30
        raise So3kError(
            f"group {numbers[sizes.argmax()]} has {n} atoms, more than max_group = {max_group}: attention in "
            f"it takes {n * (n - 1):.1e} pairs a layer, {gib:.1g} GiB of them at a time; raise max_group if "
            "that is meant, make a group of each molecule, or use a model with nonlocal: efa"
        )


def check_reach(needs: Any, model: Any, graph: Graph, where: str) -> None:
    """Refuse groups that are wider than the waves of an efa model reach.

    Args:
        needs: of the model.
        model: eager or exported.
        graph: one structure.
        where: what to call it in messages.

    Raises:
        So3kError: names the structure, the width of its widest group, and the remedy.
    """
    if needs.nonlocal_kind != "efa" or lattice_waves(needs):
        return
    device = next(model.parameters()).device
    n_groups = int(graph.group.max()) + 1
    reach = model.representation.reach
    widths = reach.diameter(reach.support(graph.positions.to(device), graph.group.to(device), n_groups))
    if (widest := float(widths.max())) > needs.far_reach:
        raise So3kError(
            f"{where}: the group of atom {int((graph.group == widths.argmax().cpu()).nonzero()[0])} is "
            f"{widest:.1f} Å wide, the model's waves reach {needs.far_reach:.1f} Å: use smaller groups, or a "
            "model with a larger efa_reach"
        )


def spanning_tree(positions: ArrayLike, cell: ArrayLike | None, pbc: ArrayLike, group: ArrayLike) -> Ints:
    """The shortest links between nearest images that connect each group: the atom before each in its tree.

    The root of a tree is the first atom of its group and its own parent. A molecule that touches its own
    image is told from it by its bonds, the shorter links.

    Args:
        positions: in any image, (n, 3), Å.
        cell: rows are the lattice vectors, (3, 3), Å.
        pbc: which axes are periodic (3,).
        group: equal within a group (n,).

    Returns:
        (n,), for `unwrap`.

    Raises:
        So3kError: a position or the cell is not usable.
    """
    from scipy.sparse import csr_array  # here, for local models need no scipy
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

    points = np.asarray(positions, dtype=np.float64)
    lattice, periodic = full_rank(cell, pbc)
    _, roots, number = np.unique(np.asarray(group), return_index=True, return_inverse=True)
    n = len(number)
    i, j, lengths = _short_links(points, lattice, periodic, number)
    # a node above all roots makes one tree of all; no weight is zero, which would be no link
    weights = np.concatenate([1.0 + lengths, np.ones(len(roots))])
    ends = np.concatenate([i, np.full(len(roots), n)]), np.concatenate([j, roots])
    forest = minimum_spanning_tree(csr_array((weights, ends), shape=(n + 1, n + 1)))
    parent = breadth_first_order(forest, n, directed=False)[1][:n].astype(np.int64)
    parent[roots] = roots
    torn = np.unique(number[parent < 0])
    if len(torn):
        order = np.argsort(number, kind="stable")
        members = np.split(order, np.cumsum(np.bincount(number))[:-1])
        for rows in (members[k] for k in torn):
            parent[rows] = rows[_long_tree(points[rows], lattice, periodic)]
    return parent


def _numbered(values: NDArray[Any], n_atoms: int, where: str) -> Ints:
    """Whole numbers as 0 … m − 1 in their order, or a refusal."""
    if values.shape != (n_atoms,):
        raise So3kError(
            f"{where}: group has shape {values.shape}, expected ({n_atoms},): give each atom one whole number"
        )
    if values.dtype.kind not in "iuf":
        raise So3kError(f"{where}: group holds {str(values[0])[:40]!r}: give each atom a whole number")
    bad = np.flatnonzero(~np.isfinite(values) | (values != np.round(values)))
    if len(bad):
        raise So3kError(
            f"{where}: group of atom {bad[0]} is {values[bad[0]]}: give each atom a whole number, the same "
            "within a molecule"
        )
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _short_links(
    points: Floats, lattice: Floats, periodic: NDArray[np.bool_], number: Ints
) -> tuple[Ints, Ints, Floats]:
    """Pairs i < j of a group no longer than LINK, each once, with the length of its nearest image."""
    i, j, shifts = neighbor_pairs(points, lattice, periodic, LINK)
    inside = np.flatnonzero((i < j) & (number[i] == number[j]))
    i, j, shifts = i[inside], j[inside], shifts[inside]
    lengths = np.linalg.norm(points[j] - points[i] + shifts @ lattice, axis=1)
    pair = i * len(points) + j
    order = np.lexsort((lengths, pair))
    nearest = order[np.unique(pair[order], return_index=True)[1]]
    return i[nearest], j[nearest], lengths[nearest]


def _long_tree(points: Floats, lattice: Floats, periodic: NDArray[np.bool_]) -> Ints:
    """Parents in a minimum spanning tree of far atoms by Prim's algorithm, without a table of pairs."""
    inverse = np.linalg.inv(lattice)
    parent = np.zeros(len(points), dtype=np.int64)
    shortest = np.full(len(points), np.inf)
    outside = np.ones(len(points), dtype=bool)
    newest = 0
    for _ in points:
        outside[newest] = False
        vectors = points - points[newest]
        vectors -= (np.round(vectors @ inverse) * periodic) @ lattice
        lengths = np.einsum("ij,ij->i", vectors, vectors)
        closer = outside & (lengths < shortest)
        shortest[closer], parent[closer] = lengths[closer], newest
        newest = int(np.argmin(np.where(outside, shortest, np.inf)))
    return parent
