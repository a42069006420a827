"""Builds the Graph of a structure, for engines, data and checks alike."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from so3k_md.errors import So3kError
from so3k_md.graph import COULOMB, CUTOFF_LR, Graph, LongRange
from so3k_md.needs import Needs, needs_of_cutoff
from so3k_md.structure.charges import neutral
from so3k_md.structure.images import Unwrapper
from so3k_md.structure.lists import LONG_SKIN, VerletList
from so3k_md.structure.pairs import full_rank, search, search_once
from so3k_md.structure.structure import Structure, named, places

Pairs = tuple[Tensor, Tensor, Tensor]  # vectors (pairs, 3), Å, idx_i and idx_j (pairs,)

CLOSEST = 1e-6  # Å; the direction of a shorter pair is rounding error


class FreshList:
    """Searches the pairs within a cutoff at each call; has the interface of `VerletList`.

    Args:
        search: (positions, cell, pbc, cutoff) -> idx_i, idx_j, shifts of each pair within the cutoff.
        cutoff: Å.
    """

    def __init__(self, search: Callable[[Tensor, Tensor, Tensor, float], Pairs], cutoff: float):
        self.search = search
        self.cutoff = cutoff
        self.builds = 0

    def __call__(self, positions: Tensor, cell: Tensor, pbc: Tensor) -> Pairs:
        """Vectors (pairs, 3), idx_i and idx_j (pairs,); arguments as of `VerletList`."""
        self.builds += 1
        idx_i, idx_j, shifts = self.search(positions, cell, pbc, self.cutoff)
        vectors = positions.index_select(0, idx_j) - positions.index_select(0, idx_i)
        return vectors + shifts.to(cell.dtype) @ cell, idx_i, idx_j


class Lists(NamedTuple):
    """Functions that find the pairs of a structure and unwrap its groups; from `fresh` or `kept`."""

    near: FreshList | VerletList  # all ordered pairs within the cutoff of the layers
    long: FreshList | VerletList | None  # each pair once, to the cutoff of long-range physics
    cutoff_lr: float  # cutoff of `long`, Å
    whole: Unwrapper


def fresh(needs: Needs, cutoff_lr: float) -> Lists:
    """Lists for different structures, with a new search for each.

    Args:
        needs: of the model.
        cutoff_lr: of long-range physics, Å, if the model has it.
    """
    long = FreshList(search_once, cutoff_lr) if needs.has_long_range else None
    return Lists(FreshList(search, needs.cutoff), long, cutoff_lr, Unwrapper())


def kept(needs: Needs, cutoff_lr: float, skin: float) -> Lists:
    """Verlet lists for one structure whose atoms move.

    Args:
        needs: of the model.
        cutoff_lr: of long-range physics, Å, if the model has it.
        skin: Å; LONG_SKIN times this for long-range pairs.
    """
    long = None
    if needs.has_long_range:
        long = VerletList(search_once, cutoff_lr, LONG_SKIN * skin, trim=False)
    return Lists(VerletList(search, needs.cutoff, skin), long, cutoff_lr, Unwrapper())


def build(structure: Structure, lists: Lists) -> Graph:
    """The Graph of a structure, in float64 on the CPU.

    Args:
        structure: from `checked` or `moved`.
        lists: from `fresh` or `kept`.

    Raises:
        So3kError: two atoms have the same position.
    """
    arrays = structure.positions, structure.lattice, structure.pbc
    geometry = positions, lattice, pbc = tuple(torch.from_numpy(array) for array in arrays)
    vectors, idx_i, idx_j = lists.near(*geometry)
    refuse_overlap(vectors, idx_i, idx_j, structure.where)
    if structure.linked:
        whole = lists.whole(*arrays, structure.group, structure.numbers)
        positions = torch.from_numpy(whole)
    charge_state = structure.charge_state
    long = (vectors[:0], idx_i[:0], idx_j[:0]) if lists.long is None else lists.long(*geometry)
    species = torch.from_numpy(structure.numbers)
    return Graph(
        species=species,
        vectors=vectors,
        idx_i=idx_i,
        idx_j=idx_j,
        frame=torch.zeros_like(species),
        positions=positions,
        group=torch.from_numpy(structure.group),
        cell=(lattice * pbc[:, None])[None],
        long=LongRange(
            vectors=long[0],
            idx_i=long[1],
            idx_j=long[2],
            charge=torch.tensor([charge_state.charge], dtype=torch.float64),
            spin=torch.tensor([charge_state.unpaired], dtype=torch.float64),
            fragment=torch.from_numpy(charge_state.fragment),
            fragment_charge=torch.from_numpy(charge_state.fragment_charge),
            coulomb=structure.coulomb,
            cutoff=lists.cutoff_lr,
        ),
    )


def build_graph(
    numbers: ArrayLike,
    positions: ArrayLike,
    cell: ArrayLike | None,
    pbc: ArrayLike,
    cutoff: float,
    group: ArrayLike | None = None,
    whole: bool = True,
) -> Graph:
    """The Graph of a neutral structure whose elements are not checked.

    Args:
        numbers: atomic numbers (n,).
        positions: (n, 3), Å.
        cell: (3, 3), Å, or None.
        pbc: (3,).
        cutoff: Å.
        group: whole numbers, equal within the groups of a non-local model (n,); None for one group and
            positions as they are.
        whole: unwrap the groups; False keeps the given images.

    Raises:
        So3kError: a position or the cell is not usable, or two atoms have the same position.
    """
    where = "the structure"
    z = np.array(numbers, dtype=np.int64)
    with named(where):
        lattice, periodic = full_rank(cell, pbc)
    number = np.zeros(len(z), dtype=np.int64)
    if group is not None:
        number = np.unique(np.asarray(group), return_inverse=True)[1].astype(np.int64)
    linked = whole and group is not None and bool(periodic.any())
    points = places(positions, len(z), where)
    known = neutral(len(z)), COULOMB[0]
    structure = Structure(z, points, lattice, periodic, number, linked, *known, where)
    return build(structure, fresh(needs_of_cutoff(cutoff), CUTOFF_LR))


def refuse_overlap(vectors: Tensor, idx_i: Tensor, idx_j: Tensor, where: str) -> None:
    """Refuse pairs so short that they have no direction.

    Args:
        vectors: (pairs, 3), Å.
        idx_i: (pairs,).
        idx_j: (pairs,).
        where: name of the structure in messages.

    Raises:
        So3kError: names the two atoms.
    """
    r: NDArray[np.float64] = vectors.numpy()
    overlapping = np.flatnonzero((r * r).sum(axis=1) < CLOSEST**2)
    if len(overlapping):
        pair = overlapping[0]
        raise So3kError(
            f"{where}: atoms {int(idx_i[pair])} and {int(idx_j[pair])} have the same position (closer than "
            f"{CLOSEST:.0e} Å): remove the duplicate or correct the positions"
        )
