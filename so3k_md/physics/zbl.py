"""Repulsion of nuclei screened by their electrons (ZBL)."""

import torch
from torch import Tensor, nn

from so3k_md.physics.coulomb import KE
from so3k_md.physics.switching import switch


def screening(x: Tensor, a: Tensor, c: Tensor) -> Tensor:
    """φ(x) = Σ_k c_k exp(−a_k x).

    Args:
        x: reduced distances, (pairs,).
        a: decays, (4,).
        c: weights of the exponentials, (4,).
    """
    return torch.exp(-x[:, None] * a) @ c


class ZBL(nn.Module):
    """E = ½ k_e Z_i Z_j / r · φ(r (Z_i^p + Z_j^p) d) · c(r) · w(r; 0, 1.5 Å) of each ordered pair.

    The buffers hold the trained parameters of a model: a, c (of sum 1), p and d (1/Å). Source: Ziegler,
    Biersack & Littmark (1985), with free parameters as in SO3LR.
    """

    a: Tensor
    c: Tensor
    p: Tensor
    d: Tensor

    def __init__(self) -> None:
        super().__init__()
        # parameters of the universal function; d = 1 / (0.8854 a_0)
        self.register_buffer("a", torch.tensor([3.2, 0.9423, 0.4028, 0.2016], dtype=torch.float64))
        c = torch.tensor([0.1818, 0.5099, 0.2802, 0.02817], dtype=torch.float64)
        self.register_buffer("c", c / c.sum())
        self.register_buffer("p", torch.tensor(0.23, dtype=torch.float64))
        self.register_buffer("d", torch.tensor(1 / (0.8854 * 0.5291772105638411), dtype=torch.float64))
        self.reach = 1.5
        self.ke = KE

    def forward(self, r: Tensor, z_i: Tensor, z_j: Tensor, cut: Tensor) -> Tensor:
        """Energies of ordered pairs, (pairs,), eV, in the dtype of `r`; zero from `reach` on.

        Args:
            r: distances, (pairs,), Å.
            z_i: atomic numbers of the centres, (pairs,), float64.
            z_j: of the neighbors.
            cut: cutoff function c of each pair, (pairs,).
        """
        power = (torch.pow(z_i, self.p) + torch.pow(z_j, self.p)) * self.d
        charges = (0.5 * self.ke) * (z_i * z_j)
        phi = screening(r * power.to(r.dtype), self.a.to(r.dtype), self.c.to(r.dtype))
        return charges.to(r.dtype) / r * phi * cut * switch(r, 0.0, self.reach)
