"""The data that travel between the parts of so3k-md: input of a model, data of its layers, its outputs."""

from typing import NamedTuple

import torch
from torch import Tensor


class LongRange(NamedTuple):
    """Input of electrostatics and dispersion; models without them get `no_long_range`.

    The kernels for GPUs also take the pairs of one structure in rows, which need no array of pairs. `vectors`
    are then the positions of all atoms and the three lattice vectors, (atoms + 3, 3). `idx_i` (atoms,) int32
    is the number of neighbors of each atom, images included. `idx_j` (atoms, width) has these neighbors, in
    the lower four bytes the atom, in the next three bytes the whole numbers of the lattice translation.
    """

    vectors: Tensor  # (pairs, 3), r_j - r_i, Å, each unordered pair within `cutoff` once, images included
    idx_i: Tensor  # (pairs,) int64
    idx_j: Tensor  # (pairs,) int64
    charge: Tensor  # (frames,), total charge, e
    spin: Tensor  # (frames,), unpaired electrons
    fragment: Tensor  # (atoms,) int64 from 0; the charge of each fragment is fixed
    fragment_charge: Tensor  # (fragments,), e
    coulomb: str  # form of the Coulomb energy, one of COULOMB
    cutoff: float  # of dispersion and of the shifted forms of the Coulomb energy, Å


class Graph(NamedTuple):
    """One structure, or a batch of structures, as a model takes it. No pair joins two structures.

    Each ordered pair within the cutoff is a row, images included. An atom is the neighbor of its own images,
    but not of itself.
    """

    species: Tensor  # (atoms,) int64, atomic numbers
    vectors: Tensor  # (pairs, 3), r_j - r_i, Å
    idx_i: Tensor  # (pairs,) int64, the centre
    idx_j: Tensor  # (pairs,) int64, the neighbor
    frame: Tensor  # (atoms,) int64 from 0, the structure of the batch to which the atom belongs
    positions: Tensor  # (atoms, 3), Å, unwrapped: the atoms of a group lie in one image
    group: Tensor  # (atoms,) int64 from 0; non-local attention acts within a group
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
    back: Tensor  # (pairs,) bool, whether the row stands for both directions; empty if each has its own row


class Rows(NamedTuple):
    """The features that layers read and update, one row for each atom."""

    x: Tensor  # (rows, F), invariant features
    chi: Tensor  # (rows, chi_width), spherical harmonic coordinates (SPHCs)
    r: Tensor  # (rows, 3), unwrapped positions, Å; only non-local attention reads them


class Groups(NamedTuple):
    """The source rows of the group of each centre."""

    members: Tensor  # (sources,) int64, source rows, group after group
    first: Tensor  # (centres,) int64, index in `members` at which the group of a centre begins
    size: Tensor  # (centres,) int64, number of atoms in the group of a centre, itself included
    own: Tensor  # (centres,) int64, the source row of the centre itself


class Reach(NamedTuple):
    """The groups of a graph as non-local layers read them; fields of other kinds of layers are empty."""

    groups: Groups  # sphc
    tiles: list[int]  # sphc: bounds of the tiles of centres, if they are known without a read
    tile_pairs: list[int]  # sphc: number of pairs in each of these tiles
    waves: Tensor  # efa: plane waves at the atoms, (atoms, waves, frequencies), float64
    signed: Tensor  # efa: the same with the signs of their weights
    blocks: list[tuple[Tensor, Tensor]]  # efa: the groups of each size, see `nn.efa.blocks`


class Outputs(NamedTuple):
    """Predictions of a model for each atom; charges and ratios are empty without long-range physics."""

    energies: Tensor  # (atoms,), eV, float64
    parts: Tensor  # (atoms, 4), the parts of the energies in the order of `PARTS`, eV
    charges: Tensor  # (atoms,), e
    ratios: Tensor  # (atoms,), Hirshfeld ratios: volumes over those of free atoms


class Gradient(NamedTuple):
    """The outputs, and the derivatives of the energy by pair vectors, positions and cell of the graph."""

    outputs: Outputs
    vectors: Tensor  # (pairs, 3), ∂E/∂(r_j − r_i), eV/Å
    positions: Tensor  # (atoms, 3), ∂E/∂r_i at constant pair vectors, eV/Å
    cell: Tensor  # (frames, 3, 3), ∂E/∂cell at constant pair vectors and positions, eV/Å
    virial: Tensor  # (frames, 3, 3), part of the virial that does not follow from the derivatives, eV


# Parts of the energy of an atom.
PARTS = ("short_range", "repulsion", "electrostatics", "dispersion")
# Forms of the Coulomb energy. kspace: exact, a lattice sum or, in an open structure, the sum over all pairs.
# shifted: a shifted potential that ends at the cutoff. shifted+self: the same, plus the energy of each
# charge in its own potential.
COULOMB = ("kspace", "shifted", "shifted+self")
CUTOFF_LR = 12.0  # Å, of dispersion and of the shifted forms of the Coulomb energy
SPHC_TILE = 32768  # pairs of groups that an sphc layer computes at once on a CPU; they fit its cache
SPHC_LARGE_TILE = 16 * SPHC_TILE  # the same on a GPU, which needs more to use all its cores
TAPER = 2.0  # Å, width of the interval before the cutoff in which dispersion is switched off


def detached(outputs: Outputs) -> Outputs:
    """The same numbers without their autograd history."""
    with torch.no_grad():
        energies, parts = outputs.energies.clone(), outputs.parts.clone()
        return Outputs(energies, parts, outputs.charges.clone(), outputs.ratios.clone())


def no_long_range(
    frame: Tensor, n_frames: int, coulomb: str = COULOMB[0], cutoff: float = CUTOFF_LR
) -> LongRange:
    """Neutral singlets, each of one fragment, without long-range pairs.

    Args:
        frame: structure of each atom, (atoms,).
        n_frames: number of structures.
        coulomb, cutoff: of `LongRange`.
    """
    zeros = torch.zeros([n_frames], dtype=torch.float64, device=frame.device)
    none = frame[:0]
    return LongRange(zeros.new_zeros([0, 3]), none, none, zeros, zeros, frame, zeros, coulomb, cutoff)


def to_device(graph: Graph, device: str | torch.device) -> Graph:
    """The same graph on another device."""
    long = LongRange._make(value.to(device) if isinstance(value, Tensor) else value for value in graph.long)
    return Graph._make([*(tensor.to(device) for tensor in graph[:-1]), long])


def collate(graphs: list[Graph]) -> Graph:
    """Join structures of any size into one batch; frames and groups are numbered in the order of the list.

    Form and cutoff of the Coulomb energy are those of the first structure.

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
