"""A layer whose messages, from local neighbours and from atoms near in SPHC space, the kernels compute."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from so3k_md.graph import Edges
from so3k_md.nn.layer import Layer
from so3k_md.nn.nonlocal_sphc import Groups

if TYPE_CHECKING:
    from so3k_md.model_config import ModelConfig

LANES = 16  # numbers of the widest register


class KernelLayer(Layer):
    """`Layer` for pairs that are given once.

    The filter of a pair is the same in both directions, as it depends on r and ‖χ_i − χ_j‖ only. Its radial
    part is a table, its spherical part and all products of features are made in the kernel, some pairs at a
    time, so that no array of (pairs, F) exists. Weights in the order that the kernels want, and the tables,
    are made once (`near_constants`, `far_constants`) and handed to each call. They are copies: a weight that
    a list holds would stay an attribute when the model is frozen, and its module with it, whose methods
    freezing deletes although errors refer to them.

    Args:
        config: shape of the model.
        is_first: whether all χ are zero where it begins.
    """

    def __init__(self, config: "ModelConfig", is_first: bool):
        super().__init__(config, torch.Generator())
        self.is_first = is_first
        self.degrees = list(config.degrees)
        self.squared = config.chi_invariant == "squared"
        self.p = int(config.nonlocal_p)
        # the features of each head of `far`, one for each degree, are followed by zeros that fill registers
        self.extra = -(config.features // len(config.degrees)) % LANES

    def near_radial(self, rbf: Tensor) -> Tensor:
        """What the filters of local pairs have of the distance, (pairs, 2 features), float64."""
        # where all χ are zero the spherical part is a constant, which the table takes along
        zero = torch.zeros([1, len(self.degrees)], dtype=torch.float64)
        parts = [self.feature_filter.radial.exact(rbf), self.geometric_filter.radial.exact(rbf)]
        if self.is_first:
            rest = [self.feature_filter.spherical.exact(zero), self.geometric_filter.spherical.exact(zero)]
        else:
            rest = [
                or_zeros(self.feature_filter.spherical.out.bias, zero[:, :1]),
                or_zeros(self.geometric_filter.spherical.out.bias, zero[:, :1]),
            ]
        return torch.cat([parts[0] + rest[0], parts[1] + rest[1]], dim=1)

    def far_radial(self, rbf: Tensor) -> Tensor:
        """What far pairs' filters have within the cutoff beside `beyond`, (pairs, features)."""
        return self.geometric_filter.radial.exact(rbf) - self.beyond(rbf.size(1))

    def beyond(self, n_rbf: int) -> Tensor:
        """What they have beyond it, where the basis is zero, (1, features), float64."""
        return self.geometric_filter.radial.exact(torch.zeros([1, n_rbf], dtype=torch.float64))

    def near_constants(self, table: Tensor) -> list[Tensor]:
        """What `near` wants, in the order of `constants_of` in attend.cpp.

        Args:
            table: of `near_radial`, (intervals, 6, 2 features).
        """
        q_x, s_x = self.feature_attention.attention.query.weight, self.feature_attention.attention.scale
        q_chi, s_chi = (
            self.geometric_attention.attention.query.weight,
            self.geometric_attention.attention.scale,
        )
        k_x, k_chi, v_x = (
            self.feature_attention.attention.key.weight.clone(),
            self.geometric_attention.attention.key.weight.clone(),
            self.feature_attention.value.weight.clone(),
        )
        maps = [q_x * s_x, q_chi * s_chi, k_x, k_chi, v_x]
        none = torch.zeros_like(table[0, 0, : table.size(2) // 2]).to(q_x.dtype)
        queries = [
            or_zeros(self.feature_attention.attention.query.bias, none) * s_x,
            or_zeros(self.geometric_attention.attention.query.bias, none) * s_chi,
        ]
        keys = [
            or_zeros(self.feature_attention.attention.key.bias, none),
            or_zeros(self.geometric_attention.attention.key.bias, none),
        ]
        hidden: list[Tensor] = [
            self.feature_filter.spherical.hidden.weight.clone(),
            self.geometric_filter.spherical.hidden.weight.clone(),
        ]
        bias = [
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
        constants = maps + [weight.transpose(1, 2) for weight in maps]
        constants += [torch.cat(queries), torch.cat(keys), or_zeros(self.feature_attention.value.bias, none)]
        constants += [
            torch.cat(hidden, dim=1),
            torch.cat(bias),
            out,
            out.transpose(1, 2),
            table.to(q_x.dtype),
        ]
        return [tensor.contiguous() for tensor in constants]

    def near(
        self,
        x: Tensor,
        chi: Tensor,
        x_src: Tensor,
        chi_src: Tensor,
        edges: Edges,
        cutoff: float,
        constants: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Messages (Δx, Δχ) to the centres from their local neighbours."""
        return torch.ops.so3k.attend(
            x,
            chi,
            x_src,
            chi_src,
            edges.r,
            edges.cut,
            edges.ylm,
            [edges.idx_i, edges.idx_j, edges.back] + constants,
            [cutoff / constants[-1].size(0), self.norm_eps],
            self.degrees,
            self.squared,
        )

    def far_constants(self, table: Tensor, n_rbf: int) -> list[Tensor]:
        """What `far` wants, in the order of `constants_of` in far_attend.cpp, without the groups.

        Args:
            table: of `far_radial`, (intervals, 6, features).
            n_rbf: of the radial basis.
        """
        weight = self.geometric_filter.spherical.out.weight
        beyond = self.beyond(n_rbf)
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
        """Rows in which the features of each head are followed by zeros that make up whole registers."""
        by_head = rows.view(rows.size(0), len(self.degrees), rows.size(1) // len(self.degrees))
        return nn.functional.pad(by_head, [0, self.extra]).flatten(1)

    def far(
        self,
        query: Tensor,
        key: Tensor,
        chi: Tensor,
        r: Tensor,
        chi_src: Tensor,
        r_src: Tensor,
        groups: Groups,
        cutoff: float,
        direction: float,
        constants: list[Tensor],
        steps: list[Tensor],
    ) -> Tensor:
        """Δχ to the centres, whose groups these are; see `FarStages.far_pairs`."""
        numbers = [cutoff / constants[-1].size(0), cutoff, self.norm_eps, self.temperature, self.kappa]
        return torch.ops.so3k.far_attend(
            self.widened(query),
            self.widened(key),
            chi,
            chi_src,
            r,
            r_src,
            [groups.members, groups.first, groups.size, groups.own] + constants + steps,
            numbers + [direction],
            self.degrees,
            self.p,
            self.squared,
        )


def or_zeros(bias: Tensor | None, zeros: Tensor) -> Tensor:
    """A bias, or zeros where there is none."""
    return zeros if bias is None else bias.clone()
