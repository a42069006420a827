"""Repulsion of nuclei that are screened by their electrons."""

import torch
from torch import Tensor, nn

from so3k_md.physics.coulomb import KE
from so3k_md.physics.switching import switch


def screening(x: Tensor, a: Tensor, c: Tensor) -> Tensor:
    """φ(x) = Σ_k c_k exp(−a_k x).

    Args:
        x: reduced distances, (pairs,).
        a: decays, (4,).
        c: shares, (4,).
    """
    return torch.exp(-x[:, None] * a) @ c


class ZBL(nn.Module):
    """E = ½ k_e Z_i Z_j / r · φ(r (Z_i^p + Z_j^p) d) · c(r) · w(r; 0, 1.5 Å) of each ordered pair.

    The buffers are what a model was trained to: a, c (of sum 1), p and d (1/Å). Source: Ziegler, Biersack &
    Littmark (1985), with the parameters free as in SO3LR.
    """

    a: Tensor
    c: Tensor
    p: Tensor
    d: Tensor

    def __init__(self) -> None:
        super().__init__()
        # the universal function, 1 / (0.8854 a_0)
        self.register_buffer("a", torch.tensor([3.2, 0.9423, 0.4028, 0.2016], dtype=torch.float64))
        c = torch.tensor([0.1818, 0.5099, 0.2802, 0.02817], dtype=torch.float64)
        self.register_buffer("c", c / c.sum())
        self.register_buffer("p", torch.tensor(0.23, dtype=torch.float64))
        self.register_buffer("d", torch.tensor(1 / (0.8854 * 0.5291772105638411), dtype=torch.float64))
        self.reach = 1.5
        self.ke = KE

    def forward(self, vectors: Tensor, idx_i: Tensor, idx_j: Tensor, species: Tensor, cut: Tensor) -> Tensor:
        """Energies of the ordered pairs, (pairs,), eV, in the dtype of `cut`; zero from 1.5 Å on.

        Args:
            vectors: r_j − r_i, (pairs, 3), Å.
            idx_i: rows of the centres, (pairs,).
            idx_j: rows of the neighbours, (pairs,).
            species: atomic numbers, (rows,).
            cut: cutoff function c of each pair, (pairs,).
        """
        dtype = cut.dtype
        near = torch.nonzero((vectors * vectors).sum(1) < self.reach * self.reach)[:, 0]
        v = vectors.index_select(0, near).to(dtype)
        # a floor under the distance keeps energy and slope finite for atoms at the same place
        r = torch.sqrt((v * v).sum(1).clamp(min=1e-12))
        z = species.to(torch.float64)
        power = torch.pow(z, self.p) * self.d
        i, j = idx_i.index_select(0, near), idx_j.index_select(0, near)
        x = r * (power.index_select(0, i) + power.index_select(0, j)).to(dtype)
        charges = (0.5 * self.ke) * (z.index_select(0, i) * z.index_select(0, j)).to(dtype)
        phi = screening(x, self.a.to(dtype), self.c.to(dtype))
        energy = charges / r * phi * cut.index_select(0, near) * switch(r, 0.0, self.reach)
        return torch.zeros_like(cut).index_add(0, near, energy)
