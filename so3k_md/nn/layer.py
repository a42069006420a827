"""One layer: messages between atoms, then mixing inside each atom."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from so3k_md.graph import Edges, Graph, Groups, Reach, Rows
from so3k_md.nn.attention import FeatureAttention, FilterNet, GeometricAttention
from so3k_md.nn.geometry import Geometry
from so3k_md.nn.interaction import INTERACTIONS
from so3k_md.nn.linear import ResidualMLP
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
    """Self-attention over local neighbors (`attend`) and the exchange between features and SPHCs (`update`).

    Args:
        config: shape of the model.
        generator: of the initial weights.
        geometry: computes the geometry of non-local pairs, for layers that have these.
        is_first: whether this is the first layer, where χ may be zero; compiled layers use this.
    """

    def __init__(self, config: "ModelConfig", generator: torch.Generator, geometry: Geometry, is_first: bool):
        super().__init__()
        features, degrees = config.features, list(config.degrees)
        width, degree_width = features // config.heads, features // len(degrees)

        def filter_net() -> FilterNet:
            hidden = config.radial_hidden, config.chi_hidden
            return FilterNet(config.n_rbf, len(degrees), *hidden, features, generator)

        self.chi_distance: Any = CHI_INVARIANTS[config.chi_invariant](degrees, config.norm_eps)
        self.feature_filter = filter_net()
        self.geometric_filter = filter_net()
        bias, scale = config.attention_bias, config.attention_scale
        self.feature_attention = FeatureAttention(
            features, config.heads, bias, width**-0.5 if scale is None else scale, generator
        )
        self.geometric_attention = GeometricAttention(
            features, degrees, bias, degree_width**-0.5 if scale is None else scale, generator
        )
        self.norm1: Any = nn.LayerNorm(features, eps=1e-6) if config.layer_norm else nn.Identity()
        self.norm2: Any = nn.LayerNorm(features, eps=1e-6) if config.layer_norm else nn.Identity()
        self.chi_norm: Any = ChiNorm(degrees, config.norm_eps) if config.chi_norm else nn.Identity()
        self.mlp: Any = ResidualMLP(features, generator) if config.residual_mlp else nn.Identity()
        self.interaction: Any = INTERACTIONS[config.interaction](
            features, degrees, config.chi_invariant, config.norm_eps, config.parity, generator
        )
        self.norm_eps = config.norm_eps
        self.recomputes = (
            False  # whether `forward` is split into steps for a backward pass from layer to layer
        )

    def forward(self, rows: Rows, edges: Edges, reach: Reach) -> Rows:
        """Rows after the layer, where the sources are the centres themselves."""
        dx, dchi = self.attend(rows, rows, edges)
        return self.update(rows, dx, dchi)

    @torch.jit.export
    def attend(self, centres: Rows, sources: Rows, edges: Edges) -> tuple[Tensor, Tensor]:
        """Messages (Δx, Δχ) to the centres from their local neighbors among the sources."""
        difference = centres.chi.index_select(0, edges.idx_i) - sources.chi.index_select(0, edges.idx_j)
        distance = self.chi_distance(difference)
        x, x_src = centres.x, sources.x
        dx = self.feature_attention(x, x_src, self.feature_filter(edges.rbf, distance), edges)
        dchi = self.geometric_attention(x, x_src, self.geometric_filter(edges.rbf, distance), edges)
        return dx, dchi

    @torch.jit.export
    def update(self, rows: Rows, dx: Tensor, dchi: Tensor) -> Rows:
        """Residual sums of all messages, optional norms, and the atom-wise exchange."""
        x = self.mlp(self.norm1(rows.x + dx))
        chi = self.chi_norm(rows.chi + dchi)
        x, chi = self.interaction(x, chi)
        return Rows(self.norm2(x), chi, rows.r)


class NoReach(nn.Module):
    """The `Reach` of models without non-local attention, whose layers do not read groups."""

    def __init__(self, config: "ModelConfig"):
        super().__init__()

    def forward(self, graph: Graph) -> Reach:
        """An empty `Reach`."""
        return no_reach(graph)


def no_reach(graph: Graph) -> Reach:
    """A `Reach` whose tensors are empty."""
    none, no_waves = graph.idx_i[:0], graph.vectors[:0]
    no_numbers: list[int] = []
    no_blocks: list[tuple[Tensor, Tensor]] = []
    return Reach(Groups(none, none, none, none), no_numbers, no_numbers, no_waves, no_waves, no_blocks)
