"""One layer: messages between atoms, then mixing inside each atom."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from so3k_md.adjoint import gradients, leaf
from so3k_md.graph import Edges
from so3k_md.nn.attention import FeatureAttention, FilterNet, GeometricAttention
from so3k_md.nn.interaction import INTERACTIONS
from so3k_md.nn.linear import ResidualMLP
from so3k_md.nn.nonlocal_efa import EuclideanFastAttention
from so3k_md.nn.nonlocal_sphc import (
    FarNeighbours,
    neighbourhoods,
    pieces,
    products,
    products_adjoint,
)
from so3k_md.nn.spherical import CHI_INVARIANTS, DegreeSum

if TYPE_CHECKING:
    from so3k_md.model_config import ModelConfig


class ChiNorm(nn.Module):
    """χ^(l) ← s_l χ^(l) / sqrt(‖χ^(l)‖² + ε²), s_l trainable."""

    def __init__(self, degrees: list[int], eps: float):
        super().__init__()
        self.degree_sum = DegreeSum(degrees)
        self.scale = nn.Parameter(torch.ones(len(degrees)))
        self.eps = eps

    def forward(self, chi: Tensor) -> Tensor:
        """(atoms, chi_width) to (atoms, chi_width)."""
        square = self.degree_sum(chi * chi)
        weight = self.scale / torch.sqrt(square + (self.eps * self.eps + 1e-30))
        return chi * self.degree_sum.repeat(weight)


class Layer(nn.Module):
    """Self-attention over neighbours (`attend`) and the exchange between features and SPHCs (`update`)."""

    has_efa: torch.jit.Final[bool]

    def __init__(self, config: "ModelConfig", generator: torch.Generator):
        super().__init__()
        features, degrees = config.features, list(config.degrees)
        width, degree_width = features // config.heads, features // len(degrees)

        def filter_net() -> FilterNet:
            hidden = config.radial_hidden, config.chi_hidden
            return FilterNet(config.n_rbf, len(degrees), *hidden, features, generator)

        self.chi_distance = CHI_INVARIANTS[config.chi_invariant](degrees, config.norm_eps)
        self.feature_filter = filter_net()
        self.geometric_filter = filter_net()
        bias, scale = config.attention_bias, config.attention_scale
        self.feature_attention = FeatureAttention(
            features, config.heads, bias, width**-0.5 if scale is None else scale, generator
        )
        self.geometric_attention = GeometricAttention(
            features, degrees, bias, degree_width**-0.5 if scale is None else scale, generator
        )
        self.norm1: nn.Module = nn.LayerNorm(features, eps=1e-6) if config.layer_norm else nn.Identity()
        self.norm2: nn.Module = nn.LayerNorm(features, eps=1e-6) if config.layer_norm else nn.Identity()
        self.chi_norm: nn.Module = ChiNorm(degrees, config.norm_eps) if config.chi_norm else nn.Identity()
        self.mlp: nn.Module = ResidualMLP(features, generator) if config.residual_mlp else nn.Identity()
        self.interaction = INTERACTIONS[config.interaction](
            features, degrees, config.chi_invariant, config.norm_eps, config.parity, generator
        )
        self.norm_eps = config.norm_eps
        self.temperature, self.kappa, self.nonlocal_p = config.temperature, config.kappa, config.nonlocal_p
        self.has_efa = config.nonlocal_ == "efa"
        if self.has_efa:
            widths = config.efa_features, config.efa_values
            self.efa = EuclideanFastAttention(features, degrees, *widths, generator)

    def attend(
        self, x: Tensor, chi: Tensor, x_src: Tensor, chi_src: Tensor, edges: Edges
    ) -> tuple[Tensor, Tensor]:
        """Messages (Δx, Δχ) to the centres from their local neighbours."""
        difference = chi.index_select(0, edges.idx_i) - chi_src.index_select(0, edges.idx_j)
        distance = self.chi_distance(difference)
        dx = self.feature_attention(x, x_src, self.feature_filter(edges.rbf, distance), edges)
        dchi = self.geometric_attention(x, x_src, self.geometric_filter(edges.rbf, distance), edges)
        return dx, dchi

    def neighbourhood(self, square: Tensor, idx_i: Tensor, size: Tensor) -> Tensor:
        """φ_χ of the pairs of the groups from their ‖χ_i − χ_j‖², (pairs,)."""
        distance = torch.sqrt(square + (self.norm_eps * self.norm_eps + 1e-30)) - self.norm_eps
        return neighbourhoods(distance / self.temperature, idx_i, size, self.kappa, self.nonlocal_p)

    def far_rows(self, x: Tensor, x_src: Tensor) -> tuple[Tensor, Tensor]:
        """Queries of the centres and keys of the sources, of which `far_alpha` makes the attention."""
        attention = self.geometric_attention.attention
        return attention.query(x) * attention.scale, attention.key(x_src)

    def radial_filters(self, rbf: Tensor) -> tuple[Tensor, Tensor]:
        """The radial part of the filters beyond the cutoff, (features,), and what is added to it within.

        Args:
            rbf: damped radial basis of pairs within the cutoff, (near, n_rbf); beyond it is zero.
        """
        radial = self.geometric_filter.radial
        nothing = torch.zeros([1, rbf.size(1)], dtype=rbf.dtype, device=rbf.device)
        beyond = radial(nothing)
        return beyond[0], radial(rbf) - beyond

    def far_alpha(self, query: Tensor, key: Tensor, pairs: FarNeighbours) -> Tensor:
        """α of far pairs by the weights of the geometric attention, (pairs, degrees).

        Args:
            query: of the centres of a tile.
            key: of the sources.
            pairs: of the tile.
        """
        net = self.geometric_filter.spherical
        heads = pairs.distance.size(1)
        bounds = pieces(pairs.distance)
        parts: list[Tensor] = []
        for n in range(len(bounds) - 1):
            a, b = bounds[n], bounds[n + 1]
            w = net.shifted(pairs.distance[a:b], pairs.beyond)
            parts.append(products(query, key, w, pairs.idx_i[a:b], pairs.idx_j[a:b], heads))
        near = pairs.near
        near_i, near_j = pairs.idx_i.index_select(0, near), pairs.idx_j.index_select(0, near)
        near_alpha = products(query, key, pairs.near_w, near_i, near_j, heads)
        return torch.cat(parts).index_add(0, near, near_alpha)

    def far_alpha_adjoint(
        self, query: Tensor, key: Tensor, pairs: FarNeighbours, slope: Tensor, g_query: Tensor, g_key: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """α of `far_alpha`, and Σ slope · ∂α/∂ of the invariants and of the near filters.

        Args:
            query, key, pairs: as in `far_alpha`.
            slope: (pairs, degrees).
            g_query, g_key: Σ slope · ∂α/∂(query, key) is added to what is in them.
        """
        net = self.geometric_filter.spherical
        near = pairs.near
        near_i, near_j = pairs.idx_i.index_select(0, near), pairs.idx_j.index_select(0, near)
        near_slope = slope.index_select(0, near)
        near_alpha, g_near_w = products_adjoint(
            query, key, pairs.near_w, near_i, near_j, near_slope, g_query, g_key
        )
        bounds = pieces(pairs.distance)
        parts: list[Tensor] = []
        g_distance: list[Tensor] = []
        for n in range(len(bounds) - 1):
            a, b = bounds[n], bounds[n + 1]
            idx_i, idx_j = pairs.idx_i[a:b], pairs.idx_j[a:b]
            distance = leaf(pairs.distance[a:b])
            w = net.shifted(distance, pairs.beyond)
            part, g_w = products_adjoint(query, key, w, idx_i, idx_j, slope[a:b], g_query, g_key)
            parts.append(part)
            g_distance.append(gradients([w], [distance], [g_w])[0])
        return torch.cat(parts).index_add(0, near, near_alpha), torch.cat(g_distance), g_near_w

    def update(self, x: Tensor, chi: Tensor, dx: Tensor, dchi: Tensor) -> tuple[Tensor, Tensor]:
        """Residual sums of all messages, optional norms, and the atom-wise exchange."""
        x = self.mlp(self.norm1(x + dx))
        chi = self.chi_norm(chi + dchi)
        x, chi = self.interaction(x, chi)
        return self.norm2(x), chi
