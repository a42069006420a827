"""Builds the graph of OpenMM's particles: pairs from Verlet lists, unwrapped groups, charge and spin."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from vesin_torch import NeighborList

from so3k_md.engines.openmm.checks import box_fault, box_is_wrong
from so3k_md.graph import Gradient, Graph, LongRange, Outputs
from so3k_md.kernels.device_lists import DeviceLists
from so3k_md.needs import Needs
from so3k_md.structure.cells import limits_of
from so3k_md.structure.charges import ChargeState
from so3k_md.structure.images import unwrap, unwrap_short
from so3k_md.structure.lists import LONG_SKIN, KeptLists, VerletList, wrap
from so3k_md.units import NM_IN_ANGSTROM


def graph_tensors(graph: Graph) -> list[Tensor]:
    """The tensors of a graph in the order of its fields."""
    long = graph.long
    return [
        graph.species,
        graph.vectors,
        graph.idx_i,
        graph.idx_j,
        graph.frame,
        graph.positions,
        graph.group,
        graph.cell,
        long.vectors,
        long.idx_i,
        long.idx_j,
        long.charge,
        long.spin,
        long.fragment,
        long.fragment_charge,
    ]


def gradient_of_tensors(found: list[Tensor]) -> Gradient:
    """A `Gradient` from its tensors in the order of its fields."""
    outputs = Outputs(found[0], found[1], found[2], found[3])
    return Gradient(outputs, found[4], found[5], found[6], found[7])


class PairSearch(nn.Module):
    """Searches all pairs and images within a distance.

    Args:
        cutoff: Å.
        once: each pair in one direction only.
    """

    def __init__(self, cutoff: float, once: bool = False):
        super().__init__()
        self.once = once
        self.vesin = NeighborList(cutoff, full_list=not once)

    def forward(
        self, positions: Tensor, cell: Tensor, pbc: Tensor, cutoff: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """idx_i, idx_j (pairs,) and shifts (pairs, 3) of positions in any image."""
        if self.once and not bool(pbc.any()):
            extent = torch.linalg.vector_norm(positions.amax(0) - positions.amin(0))
            if bool(extent <= cutoff):  # otherwise bins much smaller than the cutoff are searched for seconds
                n_atoms = positions.size(0)
                pairs = torch.triu_indices(n_atoms, n_atoms, 1, device=positions.device)
                return (
                    pairs[0],
                    pairs[1],
                    torch.zeros([pairs.size(1), 3], dtype=cell.dtype, device=cell.device),
                )
        points, images = wrap(positions, cell, pbc, cutoff)
        device = points.device
        if not points.is_cuda:  # vesin knows no other devices
            points, cell, pbc = points.cpu(), cell.cpu(), pbc.cpu()
        found = self.vesin.compute(points, cell, pbc, "ijS")
        idx_i, idx_j = found[0].to(device, torch.int64), found[1].to(device, torch.int64)
        shifts = found[2].to(device) + images.index_select(0, idx_i) - images.index_select(0, idx_j)
        return idx_i, idx_j, shifts


def lists_of(
    needs: Needs, n_atoms: int, periodic: bool, skin: float, cutoff_lr: float, on_gpu: bool
) -> KeptLists | DeviceLists:
    """The neighbor lists of a module; arguments as of `GraphOfParticles`."""
    if on_gpu:
        return DeviceLists(n_atoms, needs.cutoff, cutoff_lr if needs.has_long_range else 0.0, skin, periodic)
    near = VerletList(PairSearch(needs.cutoff + skin), needs.cutoff, skin)
    if not needs.has_long_range:
        return KeptLists(near, None)
    search = PairSearch(cutoff_lr + LONG_SKIN * skin, once=True)
    return KeptLists(near, VerletList(search, cutoff_lr, LONG_SKIN * skin, trim=False))


class GraphOfParticles(nn.Module):
    """Builds the graph of the atoms that a model describes, from the positions of all particles.

    It checks nothing; `OpenMMModule.forward` does.

    Args:
        needs: of the model.
        numbers: atomic numbers of the atoms described (atoms,).
        rows: their rows among OpenMM's particles (atoms,).
        periodic: whether a box comes with the positions.
        skin: of the Verlet lists, Å; LONG_SKIN times this for long-range pairs.
        group: of each atom, from 0; non-local attention acts within a group (atoms,).
        parent: the atom to which each atom is linked, for unwrapping groups (atoms,); None to use the given
            images.
        bonds: pairs besides the links that must be near each other in unwrapped groups (bonds, 2).
        charge_state: charge, spin and fragments of the atoms.
        alone: whether the Coulomb energy leaves out periodic images, for some atoms of a box; links may then
            be long.
        bonded: atoms that have bonds (bonded,).
        coulomb: one of COULOMB.
        cutoff_lr: of long-range pairs, Å.
        on_gpu: whether the model has kernels for GPUs, and the GPU renews the lists by itself.
    """

    species: Tensor
    frame: Tensor
    group: Tensor
    parent: Tensor
    links: Tensor
    bonded: Tensor
    rows: Tensor
    pbc: Tensor
    open_cell: Tensor
    good_cell: Tensor
    charge: Tensor
    unpaired: Tensor
    fragment: Tensor
    fragment_charge: Tensor

    def __init__(
        self,
        needs: Needs,
        numbers: Sequence[int],
        rows: Sequence[int],
        periodic: bool,
        skin: float,
        group: Sequence[int],
        parent: Sequence[int] | None,
        bonds: ArrayLike,
        charge_state: ChargeState,
        alone: bool,
        bonded: ArrayLike,
        coulomb: str,
        cutoff_lr: float,
        on_gpu: bool,
    ):
        super().__init__()
        self.periodic = periodic
        self.alone = alone
        self.make_whole = parent is not None
        self.check_whole = self.make_whole and not alone
        self.nm = NM_IN_ANGSTROM
        self.coulomb, self.cutoff_lr = coulomb, cutoff_lr
        self.lists = lists_of(needs, len(numbers), periodic, skin, cutoff_lr, on_gpu)
        limits = limits_of(numbers)
        self.shortest, self.smallest = limits.length, limits.volume
        parents = np.array(parent or [], dtype=np.int64)
        links = np.concatenate([np.stack([np.arange(len(parents)), parents], 1), np.reshape(bonds, (-1, 2))])
        for name, values in {
            "species": numbers,
            "frame": [0] * len(numbers),
            "group": group,
            "parent": parents,
            "links": links,
            "bonded": bonded,
            "rows": rows,
            "fragment": charge_state.fragment,
        }.items():
            self.register_buffer(name, torch.tensor(np.array(values, dtype=np.int64)))
        self.register_buffer("pbc", torch.full((3,), periodic))
        self.register_buffer("open_cell", torch.eye(3, dtype=torch.float64))
        self.register_buffer("good_cell", torch.zeros((3, 3), dtype=torch.float64))
        self.register_buffer("charge", torch.tensor([charge_state.charge], dtype=torch.float64))
        self.register_buffer("unpaired", torch.tensor([charge_state.unpaired], dtype=torch.float64))
        self.register_buffer(
            "fragment_charge", torch.tensor(charge_state.fragment_charge, dtype=torch.float64)
        )

    @torch.jit.export
    def lengths(self, positions: Tensor, box: Tensor | None) -> tuple[Tensor, Tensor]:
        """Positions (atoms, 3) and cell (3, 3) in Å, in float64, on the device of the model.

        Args:
            positions: of all particles, in any image, (particles, 3), nm.
            box: periodic box vectors as rows, (3, 3), nm.
        """
        device = self.species.device  # OpenCL platforms keep positions on the CPU
        mine = positions.to(device, torch.float64).index_select(0, self.rows) * self.nm
        cell = self.open_cell
        if box is not None:
            cell = box.to(device, torch.float64) * self.nm
        return mine, cell

    @torch.jit.export
    def fault_of_box(self, cell: Tensor) -> str:
        """`box_fault` of a cell (3, 3), Å; the last cell without a fault is not checked again."""
        fault = ""
        if self.periodic and not torch.equal(cell, self.good_cell):
            fault = box_fault(cell, self.shortest, self.smallest, self.species.size(0))
            if len(fault) == 0:
                self.good_cell = cell
        return fault

    @torch.jit.export
    def whole(self, positions: Tensor, cell: Tensor) -> Tensor:
        """Positions (atoms, 3) in which groups lie in one image."""
        if self.make_whole:
            return unwrap(positions, cell, self.pbc, self.parent)
        return positions

    @torch.jit.export
    def whole_unread(self, positions: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """`whole` if all links are short, and whether they are, () bool; the host reads nothing."""
        if self.make_whole:
            return unwrap_short(positions, cell, self.pbc, self.parent)
        return positions, torch.ones([], dtype=torch.bool, device=positions.device)

    @torch.jit.export
    def is_stale(self, positions: Tensor, cell: Tensor) -> Tensor:
        """Whether a list must be renewed or the box has a fault, () bool; the host reads nothing."""
        stale = self.lists.outgrown(positions, cell)
        if self.periodic:
            stale = stale | box_is_wrong(cell, self.shortest, self.smallest)
        return stale

    def forward(self, positions: Tensor, cell: Tensor, whole: Tensor, renew: bool = True) -> Graph:
        """The graph of finite positions.

        Args:
            positions: in any image, (atoms, 3), Å.
            cell: (3, 3), Å.
            whole: unwrapped positions, (atoms, 3), Å.
            renew: see `VerletList`.
        """
        found = self.lists(positions, cell, self.pbc, renew)
        lattice = (cell * self.pbc).unsqueeze(0)
        if self.alone:
            lattice = torch.zeros_like(lattice)
        long = LongRange(
            found.long_vectors,
            found.long_i,
            found.long_j,
            self.charge,
            self.unpaired,
            self.fragment,
            self.fragment_charge,
            self.coulomb,
            self.cutoff_lr,
        )
        pairs = found.vectors, found.idx_i, found.idx_j
        return Graph(self.species, pairs[0], pairs[1], pairs[2], self.frame, whole, self.group, lattice, long)
