"""Checks of OpenMM modules: positions, output of the model, rows of particles, trees of links."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from so3k_md.errors import So3kError
from so3k_md.nn.segment import segment_sum
from so3k_md.reads import reads_are_free


def check_finite(positions: Tensor, rows: Tensor) -> None:
    """Refuse positions that are NaN or infinite; the error names the particle."""
    if not bool(torch.isfinite(positions).all()):
        bad = torch.nonzero(~torch.isfinite(positions).all(1))[0]
        particle = int(rows[bad].item())
        raise RuntimeError(
            f"[so3k] the position of particle {particle} is not a finite number: minimise first, take a "
            "shorter time step, or check the model"
        )


def box_measures(cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Difference of a box (3, 3), Å, from the cube of 1 Å, its shortest lattice vector, and its volume."""
    unit = torch.eye(3, dtype=cell.dtype, device=cell.device)
    shortest = torch.linalg.vector_norm(cell, dim=1).min()
    return (cell - unit).abs().max(), shortest, torch.linalg.det(cell).abs()


def box_fault(cell: Tensor, shortest: float, smallest: float, n_atoms: int) -> str:
    """Why a box cannot fit the atoms, in the same text as `structure.cells.cell_fault`; empty if it can.

    Args:
        cell: (3, 3), Å.
        shortest: lattice vector, Å, of `structure.cells.limits_of`.
        smallest: volume, Å³, of the same.
        n_atoms: number of atoms.
    """
    remedy = ": set the right one by setPeriodicBoxVectors of the Context, or correct the barostat"
    difference, length, volume = box_measures(cell)
    if bool(difference < 1e-3):
        return "the box is the cube of 1 A that PDB files contain if there is no cell" + remedy
    if not bool(length >= shortest):
        what = f"repeats after {int(100.0 * length)} pm, so that an atom would overlap with its own image"
        return "the box " + what + remedy
    if not bool(volume >= smallest):
        return f"the box has {int(volume)} A^3 for {n_atoms} atoms, less than in any known material" + remedy
    return ""


def box_is_wrong(cell: Tensor, shortest: float, smallest: float) -> Tensor:
    """Whether a box has a fault, () bool on its device; arguments as of `box_fault`."""
    difference, length, volume = box_measures(cell)
    return ~((difference >= 1e-3) & (length >= shortest) & (volume >= smallest))


def link_lengths(positions: Tensor, links: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths of the links (links,) and smallest height of the cell (), Å; arguments as of `link_fault`."""
    vectors = positions.index_select(0, links[:, 0]) - positions.index_select(0, links[:, 1])
    height = 1.0 / torch.linalg.vector_norm(torch.linalg.inv_ex(cell)[0], dim=0).max()
    return torch.linalg.vector_norm(vectors, dim=1), height


def link_fault(positions: Tensor, links: Tensor, cell: Tensor, longest: float, rows: Tensor) -> str:
    """The atoms of a link so long that another image may be nearer; empty if there is none.

    Args:
        positions: of whole groups, (atoms, 3), Å.
        links: pairs of atoms (links, 2).
        cell: (3, 3), Å.
        longest: longest allowed link, as a share of the smallest height of the cell.
        rows: numbers of the atoms in the message, (atoms,).
    """
    lengths, height = link_lengths(positions, links, cell)
    if bool(lengths.max() <= longest * height):
        return ""
    link = lengths.argmax()
    first, second = int(rows[links[link, 0]].item()), int(rows[links[link, 1]].item())
    # TorchScript prints all 17 digits of a float
    length_pm, limit_pm = int(100.0 * lengths[link].item()), int(100.0 * longest * height.item())
    return (
        f"particles {first} and {second}, linked in one group of the non-local attention, are "
        f"{length_pm} pm apart, and the limit in this box is {limit_pm} pm: a bond has broken, parts of the "
        "group have separated, or the group is bonded to its own image; use a larger box, or other groups"
    )


def extent(positions: Tensor, cell: Tensor) -> Tensor:
    """Largest extent of the atoms along a lattice vector, as a share of it, (); see `extent_fault`."""
    fractions = positions @ torch.linalg.inv_ex(cell)[0]
    return (fractions.amax(0) - fractions.amin(0)).max()


def extent_fault(positions: Tensor, cell: Tensor) -> str:
    """An error text if atoms of the model are so far apart that their nearest images change; else empty.

    Args:
        positions: of the atoms described, unwrapped, (atoms, 3), Å.
        cell: (3, 3), Å.
    """
    if bool(extent(positions, cell) <= 0.5):
        return ""
    return (
        "the atoms described span more than half of the box, so that their nearest images, which "
        "coulomb = kspace needs, are ambiguous: choose coulomb = shifted+self, or describe all atoms"
    )


def scattered(vectors: Tensor, idx_i: Tensor, bonded: Tensor, n_atoms: int, cutoff: float) -> Tensor:
    """Whether none of the atoms that had bonds has a neighbor, () bool; arguments as of `scatter_fault`."""
    if reads_are_free(vectors):  # the pairs are those within the cutoff
        isolated = torch.ones([n_atoms], dtype=torch.bool, device=idx_i.device).index_fill(0, idx_i, False)
    else:
        within = (vectors * vectors).sum(1) <= cutoff * cutoff
        isolated = segment_sum(within.to(torch.int64), idx_i, n_atoms) == 0
    return isolated.index_select(0, bonded).all()


def scatter_fault(vectors: Tensor, idx_i: Tensor, bonded: Tensor, n_atoms: int, cutoff: float) -> str:
    """An error text if no atom that had bonds has a neighbor, as after an explosion; else empty.

    No force brings such atoms back, so that neither dynamics nor a minimiser can continue usefully.

    Args:
        vectors: of the ordered pairs, r_j − r_i, (pairs, 3), Å.
        idx_i: their centres, (pairs,).
        bonded: atoms that had bonds when the module was made (bonded,); a pair may separate, more do not.
        n_atoms: number of atoms.
        cutoff: of the model, Å.
    """
    n_bonded = bonded.size(0)
    if n_bonded < 3 or not bool(scattered(vectors, idx_i, bonded, n_atoms, cutoff)):
        return ""
    return (
        f"none of {n_bonded} bonded atoms has a neighbor within {int(100.0 * cutoff + 0.5)} pm, the model's "
        "cutoff: the molecules have dissociated; minimise first, take a shorter time step, or check the model"
    )


def output_fault(energy: Tensor, forces: Tensor, rows: Tensor) -> str:
    """An error text if the energy or a force is not finite; else empty.

    Args:
        energy: ().
        forces: (atoms, 3).
        rows: numbers of the atoms in the message, (atoms,).
    """
    if bool(torch.isfinite(energy + forces.sum())):
        return ""
    what = "energy of the model"
    bad = torch.nonzero(~torch.isfinite(forces).all(1))[:, 0]
    if bad.size(0) > 0:
        what = f"force of the model on particle {int(rows[bad[0]].item())}"
    return (
        f"the {what} is not a finite number: atoms may have the same position; minimise first, or check the "
        "model"
    )


def checked_tree(parent: ArrayLike | None, group: list[int]) -> list[int] | None:
    """The links as a list, or None without links; refuses links that are not one tree for each group."""
    if parent is None:
        raise So3kError(
            "a model with non-local attention in a periodic box needs the links by which "
            "its groups are unwrapped: give `parent`, made by so3k_md.structure.images.spanning_tree"
        )
    end = links = np.asarray(parent)
    numbers = np.asarray(group)
    if np.array_equal(links, np.arange(len(numbers))):
        return None
    fits = links.shape == numbers.shape and links.dtype.kind == "i"
    fits = fits and 0 <= links.min() <= links.max() < len(links)
    if fits:
        for _ in range(len(links).bit_length()):
            end = end[end]
        roots = len(np.unique(end)) == len(np.unique(numbers)) and np.array_equal(links[end], end)
        fits = roots and np.array_equal(numbers[links], numbers)
    if not fits:
        raise So3kError(
            "parent is not one tree for each group: make it with so3k_md.structure.images.spanning_tree"
        )
    return links.tolist()


def check_rows(rows: Sequence[int], n_atoms: int, n_particles: int) -> None:
    """Refuse rows that do not give one particle for each atom."""
    if n_atoms == 0 or n_atoms != len(rows):
        raise So3kError(f"{n_atoms} elements for {len(rows)} atoms: give one for each, and at least one")
    if min(rows) < 0 or max(rows) >= n_particles or len(set(rows)) != n_atoms:
        raise So3kError(f"atoms must be different numbers from 0 to {n_particles - 1}: correct the list")
