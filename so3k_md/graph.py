"""What the model sees of a structure: species, neighbour vectors and who is whose neighbour."""

from typing import NamedTuple

import torch
from torch import Tensor


class LongRange(NamedTuple):
    """What electrostatics and dispersion need of a structure; see `no_long_range` for models without them."""

    vectors: Tensor  # (pairs, 3), r_j - r_i, Å, each unordered pair within `cutoff` once, images included
    idx_i: Tensor  # (pairs,) int64
    idx_j: Tensor  # (pairs,) int64
    charge: Tensor  # (frames,), total charge, e
    spin: Tensor  # (frames,), unpaired electrons
    fragment: Tensor  # (atoms,) int64 from 0, within which charge is conserved
    fragment_charge: Tensor  # (fragments,), e
    coulomb: str  # form of the Coulomb energy, one of COULOMB
    cutoff: float  # of dispersion and of the shifted forms of the Coulomb energy, Å


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


class Rows(NamedTuple):
    """What layers know of atoms."""

    x: Tensor  # (rows, F), invariant features
    chi: Tensor  # (rows, chi_width), spherical harmonic coordinates (SPHCs)
    r: Tensor  # (rows, 3), unwrapped positions, Å; only attention within groups reads them


class Groups(NamedTuple):
    """The source rows of the group of each centre."""

    members: Tensor  # (sources,) int64, source rows, group after group
    first: Tensor  # (centres,) int64, where a centre's group begins in `members`
    size: Tensor  # (centres,) int64, atoms of a centre's group, itself included
    own: Tensor  # (centres,) int64, the source row that is the centre itself


class Reach(NamedTuple):
    """What non-local layers know of the groups of a graph; the fields of other kinds of layer are empty."""

    groups: Groups  # sphc
    waves: Tensor  # efa: plane waves at the atoms, (atoms, waves, frequencies), float64
    signed: Tensor  # efa: the same with the signs of their weights
    group: Tensor  # efa: group of each atom, (atoms,) int64 from 0
    n_groups: int


class Outputs(NamedTuple):
    """What a model predicts of atoms; charges and ratios are empty without long-range physics."""

    energies: Tensor  # (atoms,), eV, float64
    parts: Tensor  # (atoms, 4), the energies by `PARTS`, eV
    charges: Tensor  # (atoms,), e
    ratios: Tensor  # (atoms,), Hirshfeld volumes over those of free atoms


class Gradient(NamedTuple):
    """The outputs, and the derivatives of the total energy by all geometry that a graph holds."""

    outputs: Outputs
    vectors: Tensor  # (pairs, 3), ∂E/∂(r_j − r_i), eV/Å
    positions: Tensor  # (atoms, 3), ∂E/∂r_i at constant pair vectors, eV/Å
    cell: Tensor  # (frames, 3, 3), ∂E/∂cell at constant pair vectors and positions, eV/Å
    virial: Tensor  # (frames, 3, 3), what the derivatives by positions leave out of it, eV


# What the energy of an atom consists of.
PARTS = ("short_range", "repulsion", "electrostatics", "dispersion")
# Forms of the Coulomb energy: of the lattice, or of all pairs of an open structure; cut off with a shifted
# potential; the same with the energy of each charge in its own potential.
COULOMB = ("kspace", "shifted", "shifted+self")
CUTOFF_LR = 12.0  # Å, of dispersion and of the shifted forms of the Coulomb energy
TAPER = 2.0  # Å before the cutoff in which dispersion is switched off


def detached(outputs: Outputs) -> Outputs:
    """The same numbers without their history."""
    with torch.no_grad():
        energies, parts = outputs.energies.clone(), outputs.parts.clone()
        return Outputs(energies, parts, outputs.charges.clone(), outputs.ratios.clone())


def no_long_range(frame: Tensor, n_frames: int) -> LongRange:
    """Neutral singlets, each one fragment, without pairs beyond the cutoff.

    Args:
        frame: of each atom, (atoms,).
        n_frames: number of structures.
    """
    zeros = torch.zeros([n_frames], dtype=torch.float64, device=frame.device)
    none = frame[:0]
    return LongRange(zeros.new_zeros([0, 3]), none, none, zeros, zeros, frame, zeros, COULOMB[0], CUTOFF_LR)


def to_device(graph: Graph, device: str | torch.device) -> Graph:
    """The same on another device."""
    long = LongRange._make(value.to(device) if isinstance(value, Tensor) else value for value in graph.long)
    return Graph._make([*(tensor.to(device) for tensor in graph[:-1]), long])


def collate(graphs: list[Graph]) -> Graph:
    """Join structures of any size into one batch; frames and groups are numbered in the order of the list.

    Form and cutoff of the Coulomb energy are those of the first.

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
            coulomb=longs[0].coulomb,
            cutoff=longs[0].cutoff,
        ),
    )
