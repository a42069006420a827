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


class Edges(NamedTuple):
    """The geometry of the pairs, computed once and read by every layer."""

    idx_i: Tensor  # (pairs,) int64, centre row
    idx_j: Tensor  # (pairs,) int64, source row
    rbf: Tensor  # (pairs, n_rbf), radial basis
    ylm: Tensor  # (pairs, chi_width), real spherical harmonics, degree after degree
    cut: Tensor  # (pairs,), cutoff function


def collate(graphs: list[Graph]) -> Graph:
    """Join structures of any size into one batch; frames are numbered in the order of the list.

    Args:
        graphs: structures of one frame each.
    """
    sizes = torch.tensor([graph.species.numel() for graph in graphs], dtype=torch.int64)
    offsets = torch.cumsum(sizes, 0) - sizes
    return Graph(
        species=torch.cat([graph.species for graph in graphs]),
        vectors=torch.cat([graph.vectors for graph in graphs]),
        idx_i=torch.cat([graph.idx_i + int(offset) for graph, offset in zip(graphs, offsets, strict=True)]),
        idx_j=torch.cat([graph.idx_j + int(offset) for graph, offset in zip(graphs, offsets, strict=True)]),
        frame=torch.repeat_interleave(torch.arange(len(graphs)), sizes),
    )
