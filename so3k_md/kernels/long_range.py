"""Long-range pairs, computed by the compiled kernel."""

import torch
from torch import Tensor

from so3k_md.physics.dispersion import BOHR, HARTREE
from so3k_md.physics.long_range import LongPairs, PairSums


class KernelLongPairs(LongPairs):
    """`LongPairs` computed in tiles of pairs whose numbers fit the first-level cache."""

    def __init__(self) -> None:
        super().__init__()
        self.bohr, self.hartree = BOHR, HARTREE

    def tally(
        self, vectors: Tensor, gradients: Tensor, idx_i: Tensor, idx_j: Tensor, frame: Tensor, n_frames: int
    ) -> tuple[Tensor, Tensor]:
        """As in `LongPairs`."""
        return torch.ops.so3k.tally(vectors, gradients, idx_i, idx_j, frame, n_frames)

    def pair_sums(
        self,
        vectors: Tensor,
        idx_i: Tensor,
        idx_j: Tensor,
        alpha: Tensor,
        v: Tensor,
        q: Tensor,
        coulomb: bool,
        cutoff: float,
    ) -> PairSums:
        """Sums over the pairs of each atom."""
        sums, gradients = torch.ops.so3k.long_pairs(
            vectors,
            idx_i,
            idx_j,
            alpha,
            v,
            q,
            coulomb,
            cutoff,
            self.taper,
            self.ke,
            self.bohr,
            self.hartree,
        )
        return PairSums(sums, gradients)
