"""Electrostatics and dispersion, computed by the compiled kernels."""

import torch
from torch import Tensor

from so3k_md.model.long_range import LongRangePhysics
from so3k_md.nn.readout import ChargeHead, RatioHead
from so3k_md.physics.coulomb import KE, SIGMA
from so3k_md.physics.dispersion import BOHR, HARTREE
from so3k_md.physics.kspace import LatticeDerivatives, LatticeSum
from so3k_md.physics.long_range import LongPairs, LongRangeDerivatives


class KernelLongPairs(LongPairs):
    """`LongPairs` computed in tiles of pairs whose numbers fit the first-level cache."""

    def __init__(self) -> None:
        super().__init__()
        self.bohr, self.hartree = BOHR, HARTREE

    def forward(
        self,
        vectors: Tensor,
        idx_i: Tensor,
        idx_j: Tensor,
        species: Tensor,
        q: Tensor,
        h: Tensor,
        coulomb: str,
        cutoff: float,
    ) -> LongRangeDerivatives:
        """Energies and derivatives; arguments as in `LongPairs`.

        On a GPU pairs may be in rows, see `graph.LongRange`. The derivatives by vectors are then those by the
        positions, followed by three rows for each atom, its share of Σ (r_j − r_i) ⊗ g of `tally`, float64.
        """
        energies, gradients, by_q, by_h = torch.ops.so3k.long_pairs(
            vectors,
            idx_i,
            idx_j,
            species,
            q,
            h,
            self.atoms.alpha,
            self.atoms.v,
            coulomb=coulomb != "kspace",
            cutoff=cutoff,
            taper=self.taper,
            ke=self.ke,
            bohr=self.bohr,
            hartree=self.hartree,
        )
        return LongRangeDerivatives(energies, gradients, by_q, by_h)

    def tally(
        self, vectors: Tensor, gradients: Tensor, idx_i: Tensor, idx_j: Tensor, frame: Tensor, n_frames: int
    ) -> tuple[Tensor, Tensor]:
        """As in `LongPairs`."""
        return torch.ops.so3k.tally(vectors, gradients, idx_i, idx_j, frame, n_frames)


class KernelLatticeSum(LatticeSum):
    """`LatticeSum` whose waves are those of the last cells, as long as these repeat."""

    @torch.jit.export
    def sums(self, q: Tensor, r: Tensor, cell: Tensor) -> Tensor:
        """Sums over some atoms of products of waves, as in `LatticeSum`."""
        return torch.ops.so3k.wave_sums(q, r, cell, self.k_max, self.ke, self.sigma)

    @torch.jit.export
    def read(self, q: Tensor, r: Tensor, cell: Tensor, sums: Tensor) -> LatticeDerivatives:
        """Energies and derivatives of some atoms in the potential of all, as in `LatticeSum`."""
        energies, by_q, by_r, virial = torch.ops.so3k.wave_read(
            q, r, cell, sums, self.k_max, self.ke, self.sigma
        )
        return LatticeDerivatives(energies, by_q, by_r, virial)


class KernelLongRangePhysics(LongRangePhysics):
    """`LongRangePhysics` whose sums over an open structure and over fragments are operators."""

    def __init__(
        self, charge_head: ChargeHead, ratio_head: RatioHead, long_pairs: LongPairs, lattice_sum: LatticeSum
    ):
        super().__init__(charge_head, ratio_head, long_pairs, lattice_sum)
        self.ke, self.sigma = KE, SIGMA

    @torch.jit.export
    def open_derivatives(self, q: Tensor, r: Tensor, first: int, last: int) -> tuple[Tensor, Tensor, Tensor]:
        """As in `LongRangePhysics`."""
        return torch.ops.so3k.open_coulomb(q, r, first, last, self.ke, self.sigma)

    def shifted(self, values: Tensor, total: Tensor, fragment: Tensor) -> Tensor:
        """As in `LongRangePhysics`."""
        return torch.ops.so3k.conserve(values, total, fragment)
