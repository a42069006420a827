"""Electrostatics and dispersion of pairs beyond the reach of the layers, with their slopes in closed form."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from so3k_md.physics.coulomb import KE, shifted_potential
from so3k_md.physics.dispersion import FreeAtoms, damped_sum
from so3k_md.physics.switching import switch_slope

BOHR = 0.5291772105638411  # Å
HARTREE = 27.211386245988  # eV
TAPER = 2.0  # Å before the cutoff in which dispersion is switched off
TILE = 16384  # pairs at once, whose temporaries fit a core's cache

FORMS = ("shifted", "shifted+self", "kspace")


class LongSlopes(NamedTuple):
    """Energies of long pairs and their derivatives, by which forces follow without a tape."""

    energies: Tensor  # (rows, 2), Coulomb and dispersion, half of a pair to each of its atoms, eV, float64
    vectors: Tensor  # (pairs, 3), ∂E/∂(r_j − r_i), eV/Å
    charges: Tensor  # (rows,), ∂E/∂q, eV/e
    ratios: Tensor  # (rows,), ∂E/∂h, eV


class LongPairs(nn.Module):
    """E = Σ k_e q_i q_j K(r) − Σ 2 α_i α_j / (v_i + v_j) F(r, (α_i + α_j)/2) w(r; c − 2 Å, c) over all pairs.

    K is the shifted Coulomb potential, F the damped sum of R⁻⁶, R⁻⁸ and R⁻¹⁰, w the switch.

    Args:
        rounding: "exact" or "peer", of the table of free atoms.
    """

    def __init__(self, rounding: str = "exact"):
        super().__init__()
        self.atoms = FreeAtoms(rounding)
        self.tile = TILE
        self.ke = KE
        self.taper = TAPER
        self.per_bohr2 = 1.0 / BOHR**2
        self.hartree = HARTREE

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
        n_rows: int,
    ) -> LongSlopes:
        """Energies and slopes, computed in the dtype of the charges and added up in float64.

        Args:
            vectors: r_j − r_i of every unordered pair, images included, (pairs, 3), Å; nothing comes of those
                beyond the cutoff.
            idx_i: (pairs,).
            idx_j: (pairs,).
            species: atomic numbers, (rows,).
            q: charges, (rows,), e.
            h: Hirshfeld volumes over those of free atoms, (rows,).
            coulomb: one of FORMS; "kspace" leaves the Coulomb energy to the waves of the lattice.
            cutoff: c, Å.
            n_rows: number of rows.
        """
        dtype = q.dtype
        alpha, free, v = self.atoms(species, h)
        # φ_i and ψ_i of E_i = ½ (q_i φ_i + α_i ψ_i), and Σ_j ∂E_ij/∂α_i by way of the mean a
        sums = torch.zeros([3, n_rows], dtype=torch.float64, device=q.device)
        slope = torch.empty([vectors.size(0), 3], dtype=dtype, device=q.device)
        for start in range(0, vectors.size(0), self.tile):
            stop = min(start + self.tile, vectors.size(0))
            i, j = idx_i[start:stop], idx_j[start:stop]
            d = vectors[start:stop].to(dtype)
            x, y, z = d.unbind(1)
            r2 = (x * x + y * y + z * z).clamp(min=1e-6, max=cutoff * cutoff)
            inverse = torch.rsqrt(r2)
            r = r2 * inverse
            a_i, a_j = alpha.index_select(0, i), alpha.index_select(0, j)
            w, dw = switch_slope(r, cutoff - self.taper, cutoff)
            f, by_r2, by_a = damped_sum(r2 * self.per_bohr2, 0.5 * (a_i + a_j))
            c = (-2.0 * self.hartree) / (v.index_select(0, i) + v.index_select(0, j))
            cw = c * w
            e, c6w = cw * f, cw * (a_i * a_j)
            by_a = c6w * by_a / (a_i + a_j)
            by_r = (a_i * a_j) * c * dw * f * inverse + (2.0 * self.per_bohr2) * (c6w * by_r2)
            add_both(sums[1], i, j, a_j * e, a_i * e)
            add_both(sums[2], i, j, by_a, by_a)
            if coulomb != "kspace":
                k, dk = shifted_potential(r, cutoff)
                q_i, q_j = self.ke * q.index_select(0, i), q.index_select(0, j)
                add_both(sums[0], i, j, self.ke * (q_j * k), q_i * k)
                by_r = by_r + q_i * q_j * (dk * inverse)
            torch.mul(d, by_r[:, None], out=slope[start:stop])
        phi, psi, by_mean = sums.unbind(0)
        energies = 0.5 * torch.stack([q * phi, alpha * psi], dim=1)
        return LongSlopes(energies, slope, phi.to(dtype), free * (psi + by_mean).to(dtype))


def add_both(total: Tensor, i: Tensor, j: Tensor, to_i: Tensor, to_j: Tensor) -> None:
    """Add what each pair gives to its two atoms to the sums of the atoms, in place.

    Args:
        total: (rows,).
        i: (pairs,).
        j: (pairs,).
        to_i: (pairs,).
        to_j: (pairs,).
    """
    total.scatter_add_(0, i, to_i.to(total.dtype))
    total.scatter_add_(0, j, to_j.to(total.dtype))
