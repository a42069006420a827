"""What the model sees of a structure: species, neighbour vectors and who is whose neighbour."""

from typing import NamedTuple

import torch
from torch import Tensor


class Graph(NamedTuple):
    """One structure, or a batch of structures that share no pair.

    Every ordered pair within the cutoff is a row, images included; a centre is never its own neighbour
    in the home cell.
    """

    species: Tensor  # (atoms,) int64, atomic numbers
    vectors: Tensor  # (pairs, 3), r_j - r_i, Å
    idx_i: Tensor  # (pairs,) int64, the centre
    idx_j: Tensor  # (pairs,) int64, the neighbour
    frame: Tensor  # (atoms,) int64, which structure of the batch an atom belongs to
    positions: Tensor  # (atoms, 3), Å, unwrapped: the atoms of a group lie in one image
    group: Tensor  # (atoms,) int64 from 0, within which attention reaches beyond the cutoff
    cell: Tensor  # (frames, 3, 3), lattice vectors as rows, Å; zeros for an open structure


class Edges(NamedTuple):
    """The geometry of the pairs, computed once and read by every layer."""

    idx_i: Tensor  # (pairs,) int64, centre row
    idx_j: Tensor  # (pairs,) int64, source row
    rbf: Tensor  # (pairs, n_rbf), radial basis
    ylm: Tensor  # (pairs, chi_width), real spherical harmonics, degree after degree
    cut: Tensor  # (pairs,), cutoff function


class Slopes(NamedTuple):
    """Energies and their derivatives by everything that a graph says of the geometry."""

    energies: Tensor  # (atoms,), eV
    vectors: Tensor  # (pairs, 3), ∂E/∂(r_j − r_i), eV/Å
    positions: Tensor  # (atoms, 3), ∂E/∂r_i at constant pair vectors, eV/Å
    cell: Tensor  # (frames, 3, 3), ∂E/∂cell at constant pair vectors and positions, eV/Å


def collate(graphs: list[Graph]) -> Graph:
    """Join structures of any size into one batch; frames and groups are numbered in the order of the list.

    Args:
        graphs: structures of one frame each.
    """
    sizes = torch.tensor([graph.species.numel() for graph in graphs], dtype=torch.int64)
    offsets = torch.cumsum(sizes, 0) - sizes
    n_groups = torch.tensor([int(graph.group.max()) + 1 for graph in graphs])
    first_group = torch.cumsum(n_groups, 0) - n_groups
    return Graph(
        species=torch.cat([graph.species for graph in graphs]),
        vectors=torch.cat([graph.vectors for graph in graphs]),
        idx_i=torch.cat([graph.idx_i + int(offset) for graph, offset in zip(graphs, offsets, strict=True)]),
        idx_j=torch.cat([graph.idx_j + int(offset) for graph, offset in zip(graphs, offsets, strict=True)]),
        frame=torch.repeat_interleave(torch.arange(len(graphs)), sizes),
        positions=torch.cat([graph.positions for graph in graphs]),
        group=torch.cat([graph.group for graph in graphs]) + torch.repeat_interleave(first_group, sizes),
        cell=torch.cat([graph.cell for graph in graphs]),
    )
