"""Neighbor lists that a GPU makes, keeps and renews, without a look by the host."""

import math

import torch
from torch import Tensor, nn

from so3k_md.structure.lists import Neighbors

STATES = 5  # of `state`; see kernels/gpu/lists.h
OVERFLOW, RENEWALS, LONGEST, NEAR = 1, 2, 3, 4
TOO_THIN = 0x7FFFFFFF  # instead of the longest row
ROOM = 1.05  # times what was found, so that the lists seldom outgrow their room
MORE = 8  # entries beside ROOM


class DeviceLists(nn.Module):
    """Pairs within two cutoffs, with the interface of `KeptLists`.

    The operator `neighbor_lists` decides on the device whether the lists may miss a pair, by the test of
    `VerletList`, and then makes them anew in the room that they have. Near pairs are those within the cutoff
    now, in both directions and in the order of their centres. Their number is always the same: what is left
    of their room is shared out among the centres, and has vectors beyond the cutoff. Long-range pairs are
    listed in rows, see `graph.LongRange`.

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
    close: Tensor
    rows: Tensor

    def __init__(self, n_atoms: int, cutoff: float, cutoff_lr: float, skin: float, periodic: bool):
        super().__init__()
        self.cutoff, self.cutoff_lr, self.skin = cutoff, cutoff_lr, skin
        self.periodic = periodic
        self.made = False
        self.pairs = 0  # room for near pairs
        self.room, self.more_entries, self.too_thin = ROOM, MORE, TOO_THIN
        self.overflow, self.longest, self.near = OVERFLOW, LONGEST, NEAR
        self.register_buffer("state", torch.zeros([STATES], dtype=torch.int32))
        # what is not a number is outgrown
        listed = torch.full([n_atoms + 3, 3], math.nan, dtype=torch.float64)
        self.register_buffer("listed", listed)
        self.register_buffer("length", torch.zeros([n_atoms], dtype=torch.int32))
        self.register_buffer("close", torch.zeros([n_atoms], dtype=torch.int32))
        self.register_buffer("rows", torch.zeros([n_atoms, 0], dtype=torch.int64))

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
            places, vectors, idx_i, idx_j = self.update(positions, cell)
            while renew and bool(self.outgrown(positions, cell)):
                if not self.enlarge():
                    raise RuntimeError("[so3k] the box is too thin for the cutoff: use a larger box")
                places, vectors, idx_i, idx_j = self.update(positions, cell)
            self.made = True
            if self.cutoff_lr > 0.0:
                return Neighbors(vectors, idx_i, idx_j, places, self.length, self.rows)
            return Neighbors(vectors, idx_i, idx_j, vectors[:0], idx_i[:0], idx_j[:0])

    @torch.jit.export
    def outgrown(self, positions: Tensor, cell: Tensor) -> Tensor:
        """Whether the lists have outgrown their room, so that they miss pairs, () bool on the device."""
        return self.state[self.overflow] > 0

    @torch.jit.export
    def are_made(self) -> bool:
        """Whether there are lists."""
        return self.made

    def update(self, positions: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Positions in the images of the lists with the cell, (atoms + 3, 3); near pairs, their atoms."""
        return torch.ops.so3k.neighbor_lists(
            positions,
            cell,
            self.periodic,
            self.cutoff,
            max(self.cutoff, self.cutoff_lr),
            self.skin,
            self.pairs,
            self.state,
            self.listed,
            self.length,
            self.close,
            self.rows,
        )

    def enlarge(self) -> bool:
        """Make room for what the last search found; False if no room is enough."""
        longest, near = int(self.state[self.longest]), int(self.state[self.near])
        if longest == self.too_thin:
            return False
        n_atoms = self.length.size(0)
        if near > self.pairs:
            self.pairs = int(self.room * near) + n_atoms
        if longest > self.rows.size(1):
            width = int(self.room * longest) + self.more_entries
            self.rows = torch.zeros([n_atoms, width], dtype=torch.int64, device=self.rows.device)
            self.listed.fill_(math.nan)
        return True
