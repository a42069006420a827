"""Computes the geometry of pairs: distance, radial basis, spherical harmonics and cutoff function."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from so3k_md.graph import Edges
from so3k_md.nn.radial import CUTOFFS, RADIAL_BASES
from so3k_md.nn.segment import segment_sum
from so3k_md.nn.spherical import DegreeSum, SphericalHarmonics

if TYPE_CHECKING:
    from so3k_md.model_config import ModelConfig


class Geometry(nn.Module):
    """Radial basis, spherical harmonics and cutoff function of pairs.

    Args:
        config: shape of the model.
    """

    def __init__(self, config: "ModelConfig"):
        super().__init__()
        self.cutoff = config.cutoff
        self.direction = -1.0 if config.direction == "to_centre" else 1.0
        self.damp_rbf = config.damp_rbf
        self.cutoff_function = CUTOFFS[config.cutoff_function](config.cutoff, config.cutoff_p)
        self.radial_basis = RADIAL_BASES[config.radial_basis](config.n_rbf, config.cutoff)
        self.harmonics = SphericalHarmonics(list(config.degrees))
        self.degree_sum = DegreeSum(list(config.degrees))

    def forward(self, vectors: Tensor, idx_i: Tensor, idx_j: Tensor, like: Tensor) -> Edges:
        """Everything that layers read of local pairs.

        Args:
            vectors: r_j − r_i, (pairs, 3), Å, of any floating type.
            idx_i: centre rows, (pairs,).
            idx_j: source rows, (pairs,).
            like: any tensor of the precision in which layers work.
        """
        vectors = vectors.to(like.dtype)
        r = self.length(vectors)
        cut = self.cutoff_function(r)
        rbf = self.radial_basis(r)
        if self.damp_rbf:
            rbf = rbf * cut[:, None]
        return Edges(idx_i, idx_j, rbf, self.ylm(vectors, r), cut, r, empty_bool(r))

    def length(self, vectors: Tensor) -> Tensor:
        """Lengths (pairs,) of vectors (pairs, 3), Å."""
        # a smallest distance keeps unit vectors and gradients finite for atoms at the same position
        return torch.sqrt((vectors * vectors).sum(1).clamp(min=1e-24))

    def ylm(self, vectors: Tensor, r: Tensor) -> Tensor:
        """Harmonics (pairs, chi_width) of vectors (pairs, 3) of length r (pairs,)."""
        return self.harmonics(vectors * (self.direction / r)[:, None])

    def damped_basis(self, r: Tensor) -> Tensor:
        """The radial basis times the cutoff function, (pairs, n_rbf), also if `damp_rbf` is False."""
        return self.radial_basis(r) * self.cutoff_function(r)[:, None]

    def directed(self, edges: Edges) -> Edges:
        """The pairs in both directions; `forward` of this class already gives both."""
        return edges

    def first_chi(self, edges: Edges, n_centres: int, eps: float) -> Tensor:
        """The first SPHCs of the 2022 model; see `neighbor_chi`."""
        return neighbor_chi(self.directed(edges), n_centres, eps)


def neighbor_chi(edges: Edges, n_centres: int, eps: float) -> Tensor:
    """χ_i = Σ_j φ(r_ij) Y(r̂_ij) / C_i with C_i = Σ_j φ(r_ij), the first SPHCs of the 2022 model.

    C_i is smoothed to sqrt(C_i² + ε²): with the bare sum χ jumps when the last neighbor leaves. An atom
    without neighbors gets zero.

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


def empty_bool(like: Tensor) -> Tensor:
    """An empty bool tensor on the device of another tensor."""
    return torch.empty([0], dtype=torch.bool, device=like.device)
