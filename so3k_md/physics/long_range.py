"""Electrostatics and dispersion of long-range pairs, with derivatives in closed form."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from so3k_md.graph import TAPER
from so3k_md.nn.segment import outer_sum, pair_forces
from so3k_md.physics.coulomb import KE, shifted_potential
from so3k_md.physics.dispersion import FreeAtoms, pair_kernel
from so3k_md.physics.tiling import tile_on

TILE = 32768  # pairs computed at once; their temporary arrays fit the cache of a core


class LongRangeDerivatives(NamedTuple):
    """Energies of long-range pairs and their derivatives; forces need no autograd history."""

    energies: Tensor  # (rows, 2), Coulomb and dispersion, half of each pair for each atom, eV, float64
    vectors: Tensor  # (pairs, 3), ∂E/∂(r_j − r_i), eV/Å
    charges: Tensor  # (rows,), ∂E/∂q, eV/e
    ratios: Tensor  # (rows,), ∂E/∂h, eV


class PairSums(NamedTuple):
    """Sums over the pairs of each atom, and the gradient of each pair."""

    atoms: Tensor  # (3, rows), φ, ψ and ∂E/∂α through (α_i + α_j)/2, float64
    vectors: Tensor  # (pairs, 3), ∂E/∂(r_j − r_i), eV/Å


class LongPairs(nn.Module):
    """E = Σ k_e q_i q_j K(r) + Σ α_i α_j e(r, (α_i + α_j)/2) over all pairs.

    K is the shifted Coulomb potential, e the damped and switched dispersion; α are polarizabilities.
    """

    def __init__(self) -> None:
        super().__init__()
        self.atoms = FreeAtoms()
        self.tile = TILE
        self.ke = KE
        self.taper = TAPER

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
        """Energies and derivatives, computed in the dtype of the charges and added up in float64.

        Args:
            vectors: r_j − r_i of each unordered pair, images included, (pairs, 3), Å; pairs beyond the cutoff
                contribute nothing.
            idx_i: (pairs,).
            idx_j: (pairs,).
            species: atomic numbers, (rows,).
            q: charges, (rows,), e.
            h: Hirshfeld volumes over those of free atoms, (rows,).
            coulomb: "kspace" leaves the Coulomb energy to the lattice sum; any other value is "shifted".
            cutoff: c, Å.
        """
        alpha, free, v = self.atoms(species, h)
        found = self.pair_sums(vectors, idx_i, idx_j, alpha, v, q, coulomb != "kspace", cutoff)
        phi, psi, through_mean = found.atoms.unbind(0)
        energies = 0.5 * torch.stack([q * phi, alpha * psi], dim=1)
        derivatives = phi.to(q.dtype), free * (psi + through_mean).to(q.dtype)
        return LongRangeDerivatives(energies, found.vectors, derivatives[0], derivatives[1])

    def tally(
        self, vectors: Tensor, gradients: Tensor, idx_i: Tensor, idx_j: Tensor, frame: Tensor, n_frames: int
    ) -> tuple[Tensor, Tensor]:
        """∂E/∂r_i (atoms, 3) and Σ (r_j − r_i) ⊗ g_ij (frames, 3, 3) from the gradient g of pairs, float64.

        Args:
            vectors: r_j − r_i, (pairs, 3), Å.
            gradients: g, (pairs, 3), eV/Å.
            idx_i: (pairs,).
            idx_j: (pairs,).
            frame: of each atom, (atoms,).
            n_frames: number of frames.
        """
        g = gradients.to(torch.float64)
        return -pair_forces(g, idx_i, idx_j, frame.size(0)), outer_sum(vectors, g, frame, idx_i, n_frames)

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
        """Sums over the pairs of each atom, computed tile by tile.

        Args:
            vectors, idx_i, idx_j: of the pairs.
            alpha: polarizabilities, (rows,), a.u.
            v: of the free atoms, (rows,), a.u.
            q: charges, (rows,), e.
            coulomb: whether the shifted Coulomb energy is wanted.
            cutoff: c, Å.
        """
        dtype = q.dtype
        # E_i = ½ (q_i φ_i + α_i ψ_i) with φ_i = k_e Σ_j q_j K_ij and ψ_i = Σ_j α_j e_ij
        # sums of their own: autograd refuses to add to views of one tensor
        phi = torch.zeros([q.size(0)], dtype=torch.float64, device=q.device)
        psi, through_mean = torch.zeros_like(phi), torch.zeros_like(phi)
        derivative = torch.empty([vectors.size(0), 3], dtype=dtype, device=q.device)
        tile = tile_on(q, self.tile)
        for start in range(0, vectors.size(0), tile):
            stop = min(start + tile, vectors.size(0))
            i, j = idx_i[start:stop], idx_j[start:stop]
            d = vectors[start:stop].to(dtype)
            x, y, z = d.unbind(1)
            # clamped to a smallest distance, which keeps atoms at the same position finite, and to the
            # cutoff, where everything is zero
            r = torch.sqrt((x * x + y * y + z * z).clamp(min=1e-6, max=cutoff * cutoff))
            a_i, a_j = alpha.index_select(0, i), alpha.index_select(0, j)
            v_ij = v.index_select(0, i) + v.index_select(0, j)
            e, by_mean, by_r = pair_kernel(r, a_i, a_j, v_ij, cutoff, self.taper)
            add_both(psi, i, j, a_j * e, a_i * e)
            add_both(through_mean, i, j, by_mean, by_mean)
            if coulomb:
                k, dk = shifted_potential(r, cutoff)
                q_i, q_j = q.index_select(0, i), self.ke * q.index_select(0, j)
                add_both(phi, i, j, q_j * k, self.ke * (q_i * k))
                by_r = by_r + q_i * q_j * dk
            derivative[start:stop] = d * (by_r / r)[:, None]
        return PairSums(torch.stack([phi, psi, through_mean]), derivative)


def add_both(total: Tensor, i: Tensor, j: Tensor, to_i: Tensor, to_j: Tensor) -> None:
    """Add the contributions of each pair to the sums of its two atoms, in place.

    Args:
        total: (rows,).
        i: (pairs,).
        j: (pairs,).
        to_i: (pairs,).
        to_j: (pairs,).
    """
    total.scatter_add_(0, i, to_i.to(total.dtype))
    total.scatter_add_(0, j, to_j.to(total.dtype))
