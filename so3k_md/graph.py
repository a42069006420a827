"""What the model sees of a structure: species, neighbour vectors and who is whose neighbour."""

from typing import NamedTuple

import torch
from torch import Tensor


class LongRange(NamedTuple):
    """What electrostatics and dispersion need of a structure; see `no_long_range` for models without them."""

    vectors: Tensor  # (pairs, 3), r_j - r_i, Å, each unordered pair within `cutoff_lr` once, images included
    idx_i: Tensor  # (pairs,) int64
    idx_j: Tensor  # (pairs,) int64
    charge: Tensor  # (frames,), total charge, e
    spin: Tensor  # (frames,), unpaired electrons
    fragment: Tensor  # (atoms,) int64 from 0, within which charge is conserved
    fragment_charge: Tensor  # (fragments,), e


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
    long: LongRange


class Edges(NamedTuple):
    """The geometry of the pairs, computed once and read by every layer."""

    idx_i: Tensor  # (pairs,) int64, centre row
    idx_j: Tensor  # (pairs,) int64, source row
    rbf: Tensor  # (pairs, n_rbf), radial basis
    ylm: Tensor  # (pairs, chi_width), real spherical harmonics, degree after degree
    cut: Tensor  # (pairs,), cutoff function
    r: Tensor  # (pairs,), distance, Å
    back: Tensor  # (pairs,) bool, whether the pair stands for both directions; empty where both are given


class Slopes(NamedTuple):
    """Energies and their derivatives by everything that a graph says of the geometry.

    Charges and ratios are empty where a model has no long-range physics.
    """

    energies: Tensor  # (atoms,), eV
    vectors: Tensor  # (pairs, 3), ∂E/∂(r_j − r_i), eV/Å
    positions: Tensor  # (atoms, 3), ∂E/∂r_i at constant pair vectors, eV/Å
    cell: Tensor  # (frames, 3, 3), ∂E/∂cell at constant pair vectors and positions, eV/Å
    virial: Tensor  # (frames, 3, 3), what the derivatives by positions leave out of it, eV
    charges: Tensor  # (atoms,), e
    ratios: Tensor  # (atoms,), Hirshfeld volumes over those of free atoms
    parts: Tensor  # (atoms, 4), the energies by `PARTS`, eV


# What the energy of an atom consists of.
PARTS = ("short_range", "repulsion", "electrostatics", "dispersion")


def no_long_range(frame: Tensor, n_frames: int) -> LongRange:
    """Neutral singlets, each one fragment, without pairs beyond the cutoff.

    Args:
        frame: of each atom, (atoms,).
        n_frames: number of structures.
    """
    zeros = torch.zeros([n_frames], dtype=torch.float64, device=frame.device)
    none = frame[:0]
    return LongRange(zeros.new_zeros([0, 3]), none, none, zeros, zeros, frame, zeros)


def to_device(graph: Graph, device: str | torch.device) -> Graph:
    """The same on another device."""
    long = LongRange(*(tensor.to(device) for tensor in graph.long))
    return Graph._make([*(tensor.to(device) for tensor in graph[:-1]), long])


def collate(graphs: list[Graph]) -> Graph:
    """Join structures of any size into one batch; frames and groups are numbered in the order of the list.

    Args:
        graphs: structures of one frame each.
    """
    sizes = torch.tensor([graph.species.numel() for graph in graphs], dtype=torch.int64)
    offsets = torch.cumsum(sizes, 0) - sizes
    n_groups = torch.tensor([int(graph.group.max()) + 1 for graph in graphs])
    first_group = torch.cumsum(n_groups, 0) - n_groups
    longs = [graph.long for graph in graphs]
    n_fragments = torch.tensor([len(long.fragment_charge) for long in longs])
    first_fragment = torch.cumsum(n_fragments, 0) - n_fragments

    def shifted(parts: list[Tensor], shifts: Tensor) -> Tensor:
        return torch.cat([part + int(shift) for part, shift in zip(parts, shifts, strict=True)])

    return Graph(
        species=torch.cat([graph.species for graph in graphs]),
        vectors=torch.cat([graph.vectors for graph in graphs]),
        idx_i=shifted([graph.idx_i for graph in graphs], offsets),
        idx_j=shifted([graph.idx_j for graph in graphs], offsets),
        frame=torch.repeat_interleave(torch.arange(len(graphs)), sizes),
        positions=torch.cat([graph.positions for graph in graphs]),
        group=shifted([graph.group for graph in graphs], first_group),
        cell=torch.cat([graph.cell for graph in graphs]),
        long=LongRange(
            vectors=torch.cat([long.vectors for long in longs]),
            idx_i=shifted([long.idx_i for long in longs], offsets),
            idx_j=shifted([long.idx_j for long in longs], offsets),
            charge=torch.cat([long.charge for long in longs]),
            spin=torch.cat([long.spin for long in longs]),
            fragment=shifted([long.fragment for long in longs], first_fragment),
            fragment_charge=torch.cat([long.fragment_charge for long in longs]),
        ),
    )
