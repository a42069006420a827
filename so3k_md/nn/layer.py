"""One layer: messages between atoms, then mixing inside each atom."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from so3k_md.graph import Edges
from so3k_md.nn.attention import FeatureAttention, FilterNet, GeometricAttention
from so3k_md.nn.interaction import INTERACTIONS
from so3k_md.nn.linear import ResidualMLP
from so3k_md.nn.nonlocal_efa import EuclideanFastAttention
from so3k_md.nn.nonlocal_sphc import neighbourhoods
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
        """φ_χ of the pairs of the groups from their ‖χ_i^(l) − χ_j^(l)‖², (pairs,)."""
        distance = torch.sqrt(square.sum(1) + (self.norm_eps * self.norm_eps + 1e-30)) - self.norm_eps
        return neighbourhoods(distance / self.temperature, idx_i, size, self.kappa, self.nonlocal_p)

    def far_alpha(
        self,
        x: Tensor,
        x_src: Tensor,
        square: Tensor,
        idx_i: Tensor,
        idx_j: Tensor,
        near: Tensor,
        rbf: Tensor,
    ) -> Tensor:
        """α of far pairs by the weights of the geometric attention, (pairs, degrees).

        Args:
            x: features of the centres.
            x_src: features of the sources.
            square: ‖χ_i^(l) − χ_j^(l)‖², (pairs, degrees).
            idx_i: centres.
            idx_j: sources.
            near: those of the pairs that are within the cutoff too.
            rbf: damped radial basis of these, (near pairs, n_rbf); beyond the cutoff it is zero.
        """
        net = self.geometric_filter
        attention = self.geometric_attention.attention
        beyond = net.radial(torch.zeros_like(x[:1, :1]).expand(1, rbf.size(1)))
        distance = self.chi_distance.of_squares(square)  # type: ignore[operator]
        w = net.spherical.shifted(distance, beyond[0])
        w = w.index_add(0, near, net.radial(rbf) - beyond)
        return attention.products(x, x_src, w, idx_i, idx_j) * attention.scale

    def update(self, x: Tensor, chi: Tensor, dx: Tensor, dchi: Tensor) -> tuple[Tensor, Tensor]:
        """Residual sums of all messages, optional norms, and the atom-wise exchange."""
        x = self.mlp(self.norm1(x + dx))
        chi = self.chi_norm(chi + dchi)
        x, chi = self.interaction(x, chi)
        return self.norm2(x), chi
