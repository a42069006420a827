"""Electrostatics of charges smeared over 4 Å: V(r) = erf(r / 4 Å) / r."""

import math

import torch
from torch import Tensor

from so3k_md.physics.switching import switch_with_derivative
from so3k_md.physics.tiling import tile_on

KE = 14.399645351950548  # e² / (4π ε_0), eV Å
SIGMA = 4.0  # Å


def potential(r: Tensor, sigma: float = SIGMA) -> tuple[Tensor, Tensor]:
    """V(r) = erf(r/σ) / r and V′(r) = (2/(√π σ) exp(−r²/σ²) − V) / r.

    Args:
        r: distances, above zero, Å.
        sigma: σ, Å.

    Returns:
        1/Å and 1/Å².
    """
    inverse, u = torch.reciprocal(r), r * (1.0 / sigma)
    v = torch.erf(u) * inverse
    return v, (torch.exp(-u * u) * (2.0 / (math.sqrt(math.pi) * sigma)) - v) * inverse


def potential_at(r: float, sigma: float = SIGMA) -> tuple[float, float]:
    """V and V′ at one distance; see `potential`."""
    v = math.erf(r / sigma) / r
    return v, (2.0 / (math.sqrt(math.pi) * sigma) * math.exp(-((r / sigma) ** 2)) - v) / r


def shifted_potential(r: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """K(r) = V(r) − V(c) − (1 − f) V′(c) (r − c) with f = w(r; 0.45 c, c), and K′(r).

    Below 0.45 c only a constant is subtracted. K and K′ vanish at c.

    Args:
        r: distances above zero and at most c, (pairs,), Å.
        cutoff: c, Å.
    """
    v, dv = potential(r)
    v_c, dv_c = potential_at(cutoff)
    f, df = switch_with_derivative(r, 0.45 * cutoff, cutoff)
    ramp, beyond = (1.0 - f) * dv_c, r - cutoff
    return v - v_c - ramp * beyond, dv - ramp + df * (beyond * dv_c)


def self_terms(q: Tensor, cutoff: float, ke: float = KE) -> tuple[Tensor, Tensor]:
    """E_i = −½ k_e V(c) q_i², the energy of a charge in its own shifted potential, and ∂E/∂q_i.

    Args:
        q: charges, (atoms,), e.
        cutoff: c, Å.
        ke: k_e, eV Å.

    Returns:
        (atoms,) eV, float64, and (atoms,) eV/e.
    """
    derivative = q * (-ke * potential_at(cutoff)[0])
    return 0.5 * (q * derivative).to(torch.float64), derivative


def open_sum(
    q: Tensor, r: Tensor, first: int, last: int, tile: int = 65536, ke: float = KE
) -> tuple[Tensor, Tensor, Tensor]:
    """E_i = ½ q_i φ_i with φ_i = k_e Σ_{j≠i} q_j V(r_ij), for some atoms of an open structure.

    Atoms are computed tile by tile, so that memory grows linearly with their number.

    Args:
        q: charges, (atoms,), e; the result is computed in their dtype.
        r: positions, (atoms, 3), Å.
        first: of the atoms wanted.
        last: one after the last of the atoms wanted.
        tile: pairs at a time on a CPU.
        ke: k_e, eV Å.

    Returns:
        For the atoms wanted: energies (wanted,) eV, float64, and the derivatives of the energy of all atoms
        by their charges, φ (wanted,) eV/e, and by their positions (wanted, 3) eV/Å.
    """
    x, mine = r.t().contiguous(), q[first:last]
    phi = torch.zeros_like(mine)
    derivative = torch.zeros([3, last - first], dtype=q.dtype, device=q.device)
    step = max(1, tile_on(q, tile) // max(1, q.size(0)))
    for start in range(first, last, step):
        stop = min(last, start + step)
        d = (x[:, start:stop, None] - x[:, None, :]).to(q.dtype)
        r2 = (d * d).sum(0).clamp(min=1e-12)
        v, dv = potential(torch.sqrt(r2))
        v.diagonal(start).zero_()
        phi[start - first : stop - first] = v @ q
        derivative[:, start - first : stop - first] = (d * (dv * torch.rsqrt(r2))) @ q
    phi = ke * phi
    return 0.5 * (mine * phi).to(torch.float64), phi, (ke * derivative * mine).t()
