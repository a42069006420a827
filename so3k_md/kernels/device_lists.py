"""Neighbor lists that a GPU makes, keeps and renews, without a look by the host."""

import math

import torch
from torch import Tensor, nn

from so3k_md.structure.lists import Neighbors

STATES = 5  # of `state`; see kernels/gpu/lists.h
OVERFLOW, RENEWALS, LONGEST, NEAR = 1, 2, 3, 4
ROOM = 1.1  # times what a search found, so that the lists seldom outgrow their room
MORE_ENTRIES, MORE_PAIRS = 8, 2  # beside ROOM, of each row and for each atom


class DeviceLists(nn.Module):
    """Pairs within two cutoffs, with the interface of `KeptLists`.

    The operator `neighbor_lists` decides on the device whether the lists may miss a pair, by the test of
    `VerletList`, and then makes them anew in the room that they have. Near pairs are listed in both
    directions in the order of their centres. Their number is always the same: what is left of their room is
    shared out among the centres, and has vectors beyond the cutoff. Long-range pairs are listed in rows, see
    `graph.LongRange`.

    Args:
        n_atoms: number of atoms.
        cutoff: of near pairs, Å.
        cutoff_lr: of long-range pairs, Å; 0 for a model without these.
        skin: Å, of both.
        periodic: whether the cell is periodic along all axes, or along none.
    """

    state: Tensor
    listed: Tensor
    length: Tensor
    rows: Tensor
    idx_i: Tensor
    idx_j: Tensor
    image: Tensor

    def __init__(self, n_atoms: int, cutoff: float, cutoff_lr: float, skin: float, periodic: bool):
        super().__init__()
        self.cutoff, self.cutoff_lr, self.skin = cutoff, cutoff_lr, skin
        self.periodic = periodic
        self.made = False
        self.room, self.more_entries, self.more_pairs = ROOM, MORE_ENTRIES, MORE_PAIRS
        self.overflow, self.longest, self.near = OVERFLOW, LONGEST, NEAR
        self.register_buffer("state", torch.zeros([STATES], dtype=torch.int32))
        # what is not a number is outgrown
        listed = torch.full([n_atoms + 3, 3], math.nan, dtype=torch.float64)
        self.register_buffer("listed", listed)
        self.register_buffer("length", torch.zeros([n_atoms], dtype=torch.int32))
        self.register_buffer("rows", torch.zeros([n_atoms, 0], dtype=torch.int64))
        self.register_buffer("idx_i", torch.zeros([0], dtype=torch.int64))
        self.register_buffer("idx_j", torch.zeros([0], dtype=torch.int64))
        self.register_buffer("image", torch.zeros([0], dtype=torch.int32))

    def forward(self, positions: Tensor, cell: Tensor, pbc: Tensor, renew: bool = True) -> Neighbors:
        """The pairs at these positions; do not change them.

        Args:
            positions: finite, in any image, (atoms, 3) float64, Å.
            cell: lattice vectors as rows; unit vectors without a boundary, (3, 3) float64, Å.
            pbc: not used.
            renew: whether to look if the lists have outgrown their room, for which the host reads.

        Raises:
            RuntimeError: the box is much thinner than the cutoff.
        """
        with torch.no_grad():
            places, vectors = self.update(positions, cell)
            while renew and bool(self.outgrown(positions, cell)):
                if not self.enlarge():
                    raise RuntimeError("[so3k] the box is too thin for the cutoff: use a larger box")
                places, vectors = self.update(positions, cell)
            self.made = True
            if self.cutoff_lr > 0.0:
                return Neighbors(vectors, self.idx_i, self.idx_j, places, self.length, self.rows)
            return Neighbors(vectors, self.idx_i, self.idx_j, vectors[:0], self.idx_i[:0], self.idx_j[:0])

    @torch.jit.export
    def outgrown(self, positions: Tensor, cell: Tensor) -> Tensor:
        """Whether the lists have outgrown their room, so that they miss pairs, () bool on the device."""
        return self.state[self.overflow] > 0

    @torch.jit.export
    def are_made(self) -> bool:
        """Whether there are lists."""
        return self.made

    def update(self, positions: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Positions in the images of the lists, with the cell (atoms + 3, 3), and vectors of near pairs."""
        return torch.ops.so3k.neighbor_lists(
            positions,
            cell,
            self.periodic,
            self.cutoff,
            max(self.cutoff, self.cutoff_lr),
            self.skin,
            self.state,
            self.listed,
            self.length,
            self.rows,
            self.idx_i,
            self.idx_j,
            self.image,
        )

    def enlarge(self) -> bool:
        """Make room for what the last search found; False if there was enough."""
        n_atoms = self.length.size(0)
        longest, near = int(self.state[self.longest]), int(self.state[self.near])
        if longest <= self.rows.size(1) and near <= self.idx_i.size(0):
            return False
        width = max(int(self.room * longest) + self.more_entries, self.rows.size(1))
        pairs = max(int(self.room * near) + self.more_pairs * n_atoms, self.idx_i.size(0))
        self.rows = torch.zeros([n_atoms, width], dtype=torch.int64, device=self.rows.device)
        # zeros are valid rows: a list that has just outgrown its room is computed once before that is noticed
        self.idx_i, self.idx_j = self.rows.new_zeros([pairs]), self.rows.new_zeros([pairs])
        self.image = self.image.new_zeros([pairs])
        self.listed.fill_(math.nan)
        return True
