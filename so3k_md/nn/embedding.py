"""The first features and the first spherical harmonic coordinates of each atom."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from so3k_md.graph import Edges
from so3k_md.nn.linear import ResidualMLP, lecun_normal
from so3k_md.nn.segment import segment_sum


class AtomEmbedding(nn.Module):
    """x_i = E[Z_i], a learned row for each atomic number."""

    def __init__(self, n_species: int, features: int, generator: torch.Generator):
        super().__init__()
        self.weight = lecun_normal(n_species, features, fan_in=features, generator=generator)

    def forward(self, species: Tensor) -> Tensor:
        """(rows,) int64 to (rows, features)."""
        return self.weight.index_select(0, species)


class TotalEmbedding(nn.Module):
    """Features from a total ψ of the whole structure, its charge or the number of its unpaired electrons.

    e_i = ψ y_i / Σ_j y_j · v_r, y_i = log(1 + exp(q[Z_i] · k_r / √F)), followed by a residual MLP without
    biases; r tells whether ψ is negative. A total of zero gives zeros. Source: SpookyNet (Unke et al., Nat.
    Commun. 12, 7273 (2021)), SO3LR.
    """

    def __init__(self, n_species: int, features: int, generator: torch.Generator):
        super().__init__()
        self.query = lecun_normal(n_species, features, fan_in=features, generator=generator)
        self.key = lecun_normal(2, features, fan_in=features, generator=generator)
        self.value = lecun_normal(2, features, fan_in=features, generator=generator)
        self.mlp = ResidualMLP(features, generator, bias=False)
        self.scale = 1.0 / math.sqrt(features)

    def affinity(self, species: Tensor, total: Tensor) -> Tensor:
        """y of atoms (rows,) in a structure of total ψ (rows,); only the sign of ψ matters."""
        key = self.key.index_select(0, (total < 0).to(torch.int64))
        return functional.softplus((self.query.index_select(0, species) * key).sum(1) * self.scale)

    def forward(self, share: Tensor) -> Tensor:
        """Shares ψ y_i / Σ_j y_j of the atoms, (rows,), to features (rows, features)."""
        return self.mlp(share[:, None] * self.value.index_select(0, (share < 0).to(torch.int64)))


def neighbour_chi(edges: Edges, n_centres: int, eps: float) -> Tensor:
    """χ_i = Σ_j φ(r_ij) Y(r̂_ij) / C_i with C_i = Σ_j φ(r_ij), the published start of the 2022 model.

    C_i is smoothed to sqrt(C_i² + ε²): with the bare sum χ jumps when the last neighbour leaves. An atom
    without neighbours gets zero.

    Args:
        edges: geometry of the pairs.
        n_centres: number of centre rows.
        eps: ε.

    Returns:
        (n_centres, chi_width).
    """
    total = segment_sum(edges.cut[:, None] * edges.ylm, edges.idx_i, n_centres)
    weight = segment_sum(edges.cut, edges.idx_i, n_centres)
    return total / torch.sqrt(weight * weight + (eps * eps + 1e-30))[:, None]
