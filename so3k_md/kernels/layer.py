"""Layers whose messages are computed by the compiled kernels: local ones, and those of sphc."""

import uuid
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from so3k_md.graph import Edges, Groups, Reach, Rows
from so3k_md.kernels.table import TOLERANCES, Tabulated
from so3k_md.nn.efa_layer import EfaLayer
from so3k_md.nn.geometry import Geometry
from so3k_md.nn.layer import Layer
from so3k_md.nn.sphc_layer import SphcLayer

if TYPE_CHECKING:
    from so3k_md.model_config import ModelConfig

LANES = 16  # float32 numbers in the widest register
UPDATE = 2  # number of the constants of `update`; those with a table are 0 and 1


class NearWeights(NamedTuple):
    """Weights of the local messages as `so3k::attend` reads them, F features, H hidden units of a filter.

    A map of all heads holds one square matrix (in, out) for each head, a map of all degrees one for each
    degree; `query` and `key` hold both, one after the other, as one row of numbers.
    """

    query: Tensor  # of features and of degrees, times the scale of the attention
    query_bias: Tensor  # (2 F,)
    key: Tensor
    key_bias: Tensor  # (2 F,)
    value: Tensor  # of features
    value_bias: Tensor  # (F,)
    transposed: Tensor  # query, key and value, each matrix transposed
    hidden: Tensor  # of both spherical filters, (degrees, 2 H)
    hidden_bias: Tensor  # (2 H,)
    out: Tensor  # (2, H, F)
    out_transposed: Tensor  # (2, F, H)
    table: Tensor  # of both radial filters, (intervals, 6, 2 F)


def near_weights(kept: list[Tensor]) -> NearWeights:
    """The fields of `NearWeights`, which the library keeps as a list."""
    a, b = kept[:6], kept[6:]
    return NearWeights(a[0], a[1], a[2], a[3], a[4], a[5], b[0], b[1], b[2], b[3], b[4], b[5])


class SphcWeights(NamedTuple):
    """Weights of the non-local messages as `so3k::sphc_attend` reads them; rows of features are `widened`."""

    hidden: Tensor  # of the spherical filter, (degrees, H)
    hidden_bias: Tensor  # (H,)
    out: Tensor  # (H, F)
    out_transposed: Tensor  # (F, H)
    shift: Tensor  # filters beyond the cutoff, (F,)
    table: Tensor  # what the radial part adds within the cutoff, (intervals, 6, F)


class UpdateWeights(NamedTuple):
    """Weights of the exchange as `so3k::update` reads them. A part that the layer lacks has empty tensors."""

    norm1_weight: Tensor
    norm1_bias: Tensor
    mlp_first: Tensor
    mlp_first_bias: Tensor
    mlp_second: Tensor
    mlp_second_bias: Tensor
    chi_scale: Tensor
    linear: Tensor
    linear_bias: Tensor
    mixing: Tensor  # of SelfMix: from products of two components of χ to χ̃
    left: Tensor  # int64, first component of each product
    right: Tensor  # int64, second component
    mixed_linear: Tensor
    mixed_bias: Tensor
    norm2_weight: Tensor
    norm2_bias: Tensor


def update_weights(kept: list[Tensor]) -> UpdateWeights:
    """The fields of `UpdateWeights`, which the library keeps as a list."""
    a, b = kept[:8], kept[8:]
    return UpdateWeights(
        a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]
    )


class KernelLayer(Layer, Tabulated):
    """`Layer` for pairs that are listed in one direction; arguments as in `Layer`.

    The filter of a pair is the same in both directions, because it depends only on r and ‖χ_i − χ_j‖. Its
    radial part is read from a table. The kernel computes its spherical part and all products of features for
    one tile of pairs at a time, so that no array of (pairs, F) exists. The tables, and the weights in the
    order of the kernels, are made at the first call. The library keeps them, once per process for all layers
    with the same `key`. They are copies: a weight in a list would remain an attribute when the model is
    frozen, and its module with it; freezing deletes methods of such modules although errors refer to them.
    """

    # TorchScript compiles no branch that these exclude
    normed: Final[bool]
    chi_normed: Final[bool]
    residual: Final[bool]
    mixes: Final[bool]

    def __init__(self, config: "ModelConfig", generator: torch.Generator, geometry: Geometry, is_first: bool):
        super().__init__(config, generator, geometry, is_first)
        self.normed, self.chi_normed = config.layer_norm, config.chi_norm
        self.residual, self.mixes = config.residual_mlp, config.interaction == "selfmix"
        self.update_number = UPDATE
        self.geometry: Any = geometry
        self.is_first = is_first
        self.key = uuid.uuid4().hex  # unique; `with_weights` sets a hash of the content instead
        self.degrees = list(config.degrees)
        self.n_heads = config.heads
        self.squared = config.chi_invariant == "squared"
        self.tolerances = [TOLERANCES[torch.float32], TOLERANCES[torch.float64]]

    def attend(self, centres: Rows, sources: Rows, edges: Edges) -> tuple[Tensor, Tensor]:
        """Messages (Δx, Δχ) to the centres from their local neighbors."""
        weights = near_weights(self.constants(0, centres.x))
        return torch.ops.so3k.attend(
            centres.x,
            centres.chi,
            sources.x,
            sources.chi,
            edges.r,
            edges.cut,
            edges.ylm,
            edges.idx_i,
            edges.idx_j,
            edges.back,
            query=weights.query,
            query_bias=weights.query_bias,
            key=weights.key,
            key_bias=weights.key_bias,
            value=weights.value,
            value_bias=weights.value_bias,
            transposed=weights.transposed,
            hidden=weights.hidden,
            hidden_bias=weights.hidden_bias,
            out=weights.out,
            out_transposed=weights.out_transposed,
            table=weights.table,
            cutoff=self.geometry.cutoff,
            norm_eps=self.norm_eps,
            heads=self.n_heads,
            degrees=self.degrees,
            squared=self.squared,
        )

    @torch.jit.export
    def update(self, rows: Rows, dx: Tensor, dchi: Tensor) -> Rows:
        """Residual sums of all messages, optional norms, and the atom-wise exchange."""
        weights = update_weights(self.constants(self.update_number, rows.x))
        x, chi = torch.ops.so3k.update(
            rows.x + dx,
            rows.chi + dchi,
            norm1_weight=weights.norm1_weight,
            norm1_bias=weights.norm1_bias,
            mlp_first=weights.mlp_first,
            mlp_first_bias=weights.mlp_first_bias,
            mlp_second=weights.mlp_second,
            mlp_second_bias=weights.mlp_second_bias,
            chi_scale=weights.chi_scale,
            linear=weights.linear,
            linear_bias=weights.linear_bias,
            mixing=weights.mixing,
            left=weights.left,
            right=weights.right,
            mixed_linear=weights.mixed_linear,
            mixed_bias=weights.mixed_bias,
            norm2_weight=weights.norm2_weight,
            norm2_bias=weights.norm2_bias,
            norm_eps=self.norm_eps,
            degrees=self.degrees,
            squared=self.squared,
        )
        return Rows(x, chi, rows.r)

    def constants(self, n: int, x: Tensor) -> list[Tensor]:
        """Weights and tables as the kernels read them.

        Args:
            n: those of local pairs (0), of pairs of groups (1), or of `update` (2).
            x: any features, which set dtype and device.
        """
        weight = self.feature_attention.value.weight
        key = self.key + " " + str(n)
        made = torch.ops.so3k.recall(x, weight, key)
        if len(made) == 0:
            if n == self.update_number:
                with torch.no_grad():
                    made = self.update_constants(x[:0, 0])
            else:
                tolerance = self.tolerances[0 if weight.dtype == torch.float32 else 1]
                table = self.table(n, self.geometry.cutoff, tolerance, weight.device)
                with torch.no_grad():
                    made = self.constants_of(n, table)
            made = torch.ops.so3k.keep(weight, key, made)
        return made

    def function(self, n: int, r: Tensor) -> Tensor:
        """Radial part of the filters of local pairs at distances (points,), Å."""
        return self.near_radial(r)

    def constants_of(self, n: int, table: Tensor) -> list[Tensor]:
        """`near_constants`."""
        return self.near_constants(table)

    def near_radial(self, r: Tensor) -> Tensor:
        """Radial part of the filters of local pairs, (pairs, 2 features), float64."""
        rbf = self.geometry.damped_basis(r) if self.geometry.damp_rbf else self.geometry.radial_basis(r)
        # if all χ are zero the spherical part is a constant, which is added to the table
        zero = torch.zeros([1, len(self.degrees)], dtype=torch.float64, device=r.device)
        parts = [self.feature_filter.radial.exact(rbf), self.geometric_filter.radial.exact(rbf)]
        if self.is_first:
            rest = [self.feature_filter.spherical.exact(zero), self.geometric_filter.spherical.exact(zero)]
        else:
            rest = [
                or_zeros(self.feature_filter.spherical.out.bias, zero[:, :1]),
                or_zeros(self.geometric_filter.spherical.out.bias, zero[:, :1]),
            ]
        return torch.cat([parts[0] + rest[0], parts[1] + rest[1]], dim=1)

    def near_constants(self, table: Tensor) -> list[Tensor]:
        """The fields of `NearWeights`.

        Args:
            table: of `near_radial`, (intervals, 6, 2 features).
        """
        x, chi = self.feature_attention.attention, self.geometric_attention.attention
        value = self.feature_attention.value.weight.clone()
        maps = [
            x.query.weight * x.scale,
            chi.query.weight * chi.scale,
            x.key.weight.clone(),
            chi.key.weight.clone(),
        ]
        none = torch.zeros_like(table[0, 0, : table.size(2) // 2]).to(value.dtype)
        query_bias = [or_zeros(x.query.bias, none) * x.scale, or_zeros(chi.query.bias, none) * chi.scale]
        key_bias = [or_zeros(x.key.bias, none), or_zeros(chi.key.bias, none)]
        transposed = [weight.transpose(1, 2).flatten() for weight in maps + [value]]
        hidden: list[Tensor] = [
            self.feature_filter.spherical.hidden.weight.clone(),
            self.geometric_filter.spherical.hidden.weight.clone(),
        ]
        hidden_bias = [
            or_zeros(self.feature_filter.spherical.hidden.bias, none),
            or_zeros(self.geometric_filter.spherical.hidden.bias, none),
        ]
        outs: list[Tensor] = [
            self.feature_filter.spherical.out.weight.clone(),
            self.geometric_filter.spherical.out.weight.clone(),
        ]
        out = torch.stack(outs)
        if self.is_first:
            out = out[:, :0]
        return [
            torch.cat([maps[0].flatten(), maps[1].flatten()]),
            torch.cat(query_bias),
            torch.cat([maps[2].flatten(), maps[3].flatten()]),
            torch.cat(key_bias),
            value.contiguous(),
            or_zeros(self.feature_attention.value.bias, none),
            torch.cat(transposed),
            torch.cat(hidden, dim=1),
            torch.cat(hidden_bias),
            out.contiguous(),
            out.transpose(1, 2).contiguous(),
            table.to(value.dtype).contiguous(),
        ]

    def update_constants(self, none: Tensor) -> list[Tensor]:
        """The fields of `UpdateWeights`.

        Args:
            none: an empty tensor of the precision of the layer.
        """
        no_index = torch.zeros([0], dtype=torch.int64, device=none.device)
        norm1 = [none, none]
        norm2 = [none, none]
        mlp = [none, none, none, none]
        chi_scale = none
        mix = [none, no_index, no_index, none, none]
        if self.normed:
            norm1 = [self.norm1.weight.clone(), self.norm1.bias.clone()]
            norm2 = [self.norm2.weight.clone(), self.norm2.bias.clone()]
        if self.residual:
            first, second = self.mlp.first, self.mlp.second
            mlp = [
                first.weight.clone(),
                or_zeros(first.bias, none),
                second.weight.clone(),
                or_zeros(second.bias, none),
            ]
        if self.chi_normed:
            chi_scale = self.chi_norm.scale.clone()
        if self.mixes:
            mixed = self.interaction.mixed_linear
            mix = [
                self.interaction.mix.matrix(none),
                self.interaction.mix.left.clone(),
                self.interaction.mix.right.clone(),
                mixed.weight.clone(),
                or_zeros(mixed.bias, none),
            ]
        exchange = [self.interaction.linear.weight.clone(), or_zeros(self.interaction.linear.bias, none)]
        return norm1 + mlp + [chi_scale] + exchange + mix + norm2


class KernelEfaLayer(KernelLayer, EfaLayer):
    """`EfaLayer` whose local messages the kernels compute."""


class KernelSphcLayer(KernelLayer, SphcLayer):
    """`SphcLayer` whose local and non-local messages the kernels compute.

    The kernel has separate tiles, and computes them again in the backward pass.
    """

    def __init__(self, config: "ModelConfig", generator: torch.Generator, geometry: Geometry, is_first: bool):
        super().__init__(config, generator, geometry, is_first)
        self.recomputes = False
        self.p = int(config.nonlocal_p)
        self.n_rbf = config.n_rbf
        # zeros after the features of each head, one head for each degree, fill whole registers
        self.extra = -(config.features // len(config.degrees)) % LANES

    @torch.jit.export
    def tiles(self, groups: Groups) -> list[int]:
        """One tile of all centres, because the kernel has tiles of its own."""
        return [0, groups.size.size(0)] if groups.size.size(0) > 0 else [0]

    def sphc_messages(self, rows: Rows, reach: Reach) -> Tensor:
        """Messages Δχ to all atoms."""
        return self.sphc_attend(rows, rows, reach.groups, 0, rows.x.size(0))

    @torch.jit.export
    def sphc_attend(self, centres: Rows, sources: Rows, groups: Groups, first: int, last: int) -> Tensor:
        """Messages Δχ to some centres; arguments as in `sphc_pairs`."""
        query, key = self.sphc_rows(centres.x[first:last], sources.x)
        kept = self.constants(1, centres.x)
        weights = SphcWeights(kept[0], kept[1], kept[2], kept[3], kept[4], kept[5])
        return torch.ops.so3k.sphc_attend(
            self.widened(query),
            self.widened(key),
            centres.chi[first:last],
            sources.chi,
            centres.r[first:last],
            sources.r,
            groups.members,
            groups.first[first:last],
            groups.size[first:last],
            groups.own[first:last],
            hidden=weights.hidden,
            hidden_bias=weights.hidden_bias,
            out=weights.out,
            out_transposed=weights.out_transposed,
            shift=weights.shift,
            table=weights.table,
            steps=self.geometry.steps(query),
            cutoff=self.geometry.cutoff,
            norm_eps=self.norm_eps,
            temperature=self.temperature,
            kappa=self.kappa,
            direction=self.geometry.direction,
            degrees=self.degrees,
            p=self.p,
            squared=self.squared,
        )

    def function(self, n: int, r: Tensor) -> Tensor:
        """Radial part of the filters of local pairs (n = 0), or of pairs of groups (n = 1)."""
        if n == 0:
            return self.near_radial(r)
        # damped also if local pairs are not; see `sphc_neighbors`
        return self.geometric_filter.radial.exact(self.geometry.damped_basis(r)) - self.beyond()

    def constants_of(self, n: int, table: Tensor) -> list[Tensor]:
        """`near_constants` (n = 0), or `sphc_constants` (n = 1)."""
        return self.near_constants(table) if n == 0 else self.sphc_constants(table)

    def beyond(self) -> Tensor:
        """Radial part of the filters beyond the cutoff, where the basis is zero, (1, features), float64."""
        device = self.geometric_filter.radial.out.weight.device
        return self.geometric_filter.radial.exact(
            torch.zeros([1, self.n_rbf], dtype=torch.float64, device=device)
        )

    def sphc_constants(self, table: Tensor) -> list[Tensor]:
        """The fields of `SphcWeights`.

        Args:
            table: of `function`, (intervals, 6, features).
        """
        weight = self.geometric_filter.spherical.out.weight
        beyond = self.beyond()
        shift = beyond + or_zeros(self.geometric_filter.spherical.out.bias, beyond[:, :1])
        wide = self.widened(table.to(weight.dtype).flatten(0, 1))
        out = self.widened(weight)
        return [
            self.geometric_filter.spherical.hidden.weight.clone(),
            or_zeros(self.geometric_filter.spherical.hidden.bias, weight[0, :0]),
            out,
            out.t().contiguous(),
            self.widened(shift.to(weight.dtype))[0],
            wide.view(table.size(0), table.size(1), wide.size(1)),
        ]

    def widened(self, rows: Tensor) -> Tensor:
        """Rows with zeros after the features of each head, so that a head fills whole registers."""
        by_head = rows.view(rows.size(0), len(self.degrees), rows.size(1) // len(self.degrees))
        return nn.functional.pad(by_head, [0, self.extra]).flatten(1)


def or_zeros(bias: Tensor | None, zeros: Tensor) -> Tensor:
    """A bias, or zeros where there is none."""
    return zeros if bias is None else bias.clone()
