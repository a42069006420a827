"""Self-attention over the neighbors of each atom, for the features and for the SPHCs.

Centres and sources are separate rows. Sources may be the centres themselves, or copies from other ranks.
"""

import torch
from torch import Tensor, nn

from so3k_md.graph import Edges
from so3k_md.nn.linear import MLP, HeadLinear
from so3k_md.nn.segment import segment_sum
from so3k_md.nn.spherical import DegreeSum


class FilterNet(nn.Module):
    """w_ij = MLP(rbf_ij) + MLP(d_ij), d_ij the invariants of χ_i − χ_j of each degree."""

    def __init__(
        self,
        n_rbf: int,
        n_degrees: int,
        radial_hidden: int,
        chi_hidden: int,
        features: int,
        generator: torch.Generator,
    ):
        super().__init__()
        self.radial = MLP(n_rbf, radial_hidden, features, generator)
        self.spherical = MLP(n_degrees, chi_hidden, features, generator)

    def forward(self, rbf: Tensor, chi_distance: Tensor) -> Tensor:
        """(pairs, n_rbf) and (pairs, degrees) to (pairs, features)."""
        return self.radial(rbf) + self.spherical(chi_distance)


class Attention(nn.Module):
    """α_ij^h = φ(r_ij) / s Σ_f q_if w_ijf k_jf over the features f of head h; no softmax."""

    def __init__(self, features: int, heads: int, bias: bool, scale: float, generator: torch.Generator):
        super().__init__()
        self.query = HeadLinear(features, heads, bias, generator)
        self.key = HeadLinear(features, heads, bias, generator)
        self.heads = heads
        self.scale = scale

    def forward(self, x: Tensor, x_src: Tensor, w: Tensor, edges: Edges) -> Tensor:
        """Features of centres and sources and filters (pairs, features) to α, (pairs, heads)."""
        return self.products(x, x_src, w, edges.idx_i, edges.idx_j) * (edges.cut * self.scale)[:, None]

    def products(self, x: Tensor, x_src: Tensor, w: Tensor, idx_i: Tensor, idx_j: Tensor) -> Tensor:
        """Σ_f q_if w_ijf k_jf of any pairs, (pairs, heads)."""
        q = self.query(x).index_select(0, idx_i)
        k = self.key(x_src).index_select(0, idx_j)
        pairs, features = w.shape
        return (q * w * k).view(pairs, self.heads, features // self.heads).sum(2)


class FeatureAttention(nn.Module):
    """Δx_i = Σ_j α_ij v_j, head by head."""

    def __init__(self, features: int, heads: int, bias: bool, scale: float, generator: torch.Generator):
        super().__init__()
        self.attention = Attention(features, heads, bias, scale, generator)
        self.value = HeadLinear(features, heads, bias, generator)
        self.heads = heads

    def forward(self, x: Tensor, x_src: Tensor, w: Tensor, edges: Edges) -> Tensor:
        """Message to the features of the centres, (centres, features)."""
        alpha = self.attention(x, x_src, w, edges)
        v = self.value(x_src).index_select(0, edges.idx_j)
        pairs, features = v.shape
        message = (alpha[:, :, None] * v.view(pairs, self.heads, features // self.heads)).view(
            pairs, features
        )
        return segment_sum(message, edges.idx_i, x.shape[0])


class GeometricAttention(nn.Module):
    """Δχ_i^(l) = Σ_j α_ij^l Y^(l)(r̂_ij), one head per degree."""

    def __init__(
        self, features: int, degrees: list[int], bias: bool, scale: float, generator: torch.Generator
    ):
        super().__init__()
        self.attention = Attention(features, len(degrees), bias, scale, generator)
        self.degree_sum = DegreeSum(degrees)

    def forward(self, x: Tensor, x_src: Tensor, w: Tensor, edges: Edges) -> Tensor:
        """Message to the SPHCs of the centres, (centres, chi_width)."""
        alpha = self.attention(x, x_src, w, edges)
        return segment_sum(self.degree_sum.repeat(alpha) * edges.ylm, edges.idx_i, x.shape[0])
