"""The first features and the first spherical harmonic coordinates of each atom."""

import torch
from torch import Tensor, nn

from so3k_md.graph import Edges
from so3k_md.nn.linear import lecun_normal
from so3k_md.nn.segment import segment_sum


class AtomEmbedding(nn.Module):
    """x_i = E[Z_i], a learned row for each atomic number."""

    def __init__(self, n_species: int, features: int, generator: torch.Generator):
        super().__init__()
        self.weight = lecun_normal(n_species, features, fan_in=features, generator=generator)

    def forward(self, species: Tensor) -> Tensor:
        """(rows,) int64 to (rows, features)."""
        return self.weight.index_select(0, species)


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
