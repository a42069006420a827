"""Layers whose local messages are computed by the kernels for GPUs."""

import torch
from torch import Tensor, nn

from so3k_md.kernels.layer import KernelLayer, KernelSphcLayer, or_zeros
from so3k_md.kernels.table import CLOSEST
from so3k_md.nn.efa_layer import EfaLayer

TILE = 16  # columns of a factor of a product; widths are filled up with zeros to multiples of it
LOST = 3e-7  # of the filters, relative to the largest, by too few functions of the distance


class GpuLayer(KernelLayer):
    """`KernelLayer` for pairs that are listed in both directions, with weights in the layout of GPUs.

    A map of all heads, and of all degrees, is one matrix (features, columns) with a block for each head.
    The filters of a pair are one product [silu(hidden), b(r)] [out; V]. All radial filters are sums of few
    functions b of the distance, from a singular value decomposition of their table; V has the coefficients.
    """

    def near_constants(self, table: Tensor) -> list[Tensor]:
        """The fields of `NearWeights`; see the class.

        Args:
            table: of `near_radial`, (intervals, 6, 2 features), float64.
        """
        x, chi = self.feature_attention.attention, self.geometric_attention.attention
        value = self.feature_attention.value.weight
        features = table.size(2) // 2
        none = torch.zeros([features], dtype=value.dtype, device=value.device)
        heads, degrees = self.n_heads, len(self.degrees)
        query_bias = [
            filled(or_zeros(x.query.bias, none)[None] * x.scale, heads),
            filled(or_zeros(chi.query.bias, none)[None] * chi.scale, degrees),
        ]
        key_bias = [
            filled(or_zeros(x.key.bias, none)[None], heads),
            filled(or_zeros(chi.key.bias, none)[None], degrees),
        ]
        bs, ws = torch.cat(query_bias, 1)[0], torch.cat(key_bias, 1)[0]
        first, second = self.feature_filter.spherical, self.geometric_filter.spherical
        hidden = torch.cat([filled(first.hidden.weight, 1), filled(second.hidden.weight, 1)], 1)
        hidden_bias = torch.cat(
            [
                filled(or_zeros(first.hidden.bias, none)[None], 1),
                filled(or_zeros(second.hidden.bias, none)[None], 1),
            ],
            1,
        )[0]
        functions, coefficients = functions_of_distance(table, self.geometry.cutoff)
        functions, coefficients = whole_tiles(functions, coefficients)
        radial = self.columns(coefficients[:, :features], coefficients[:, features:]).to(value.dtype)
        spherical = self.columns(first.out.weight, second.out.weight)
        spherical = filled(spherical.t(), 1).t()
        if self.is_first:
            hidden, hidden_bias, spherical = hidden[:, :0], hidden_bias[:0], spherical[:0]
        inner = torch.cat([spherical, radial])
        return [
            torch.cat([blocks(x.query.weight * x.scale), blocks(chi.query.weight * chi.scale)], 1),
            bs,
            torch.cat([blocks(x.key.weight), blocks(chi.key.weight)], 1),
            ws,
            blocks(value),
            filled(or_zeros(self.feature_attention.value.bias, none)[None], heads)[0],
            none[:0],
            hidden.contiguous(),
            hidden_bias.contiguous(),
            fragments(inner),
            fragments(inner.t()).transpose(0, 1).contiguous(),
            torch.cat([functions, torch.zeros_like(functions[:1])]).to(value.dtype).contiguous(),
        ]

    def columns(self, x: Tensor, chi: Tensor) -> Tensor:
        """Rows (rows, features) of both filters side by side in the columns of the kernels."""
        return torch.cat([filled(x, self.n_heads), filled(chi, len(self.degrees))], 1)


class GpuEfaLayer(GpuLayer, EfaLayer):
    """`EfaLayer` whose local messages the kernels compute."""


class GpuSphcLayer(GpuLayer, KernelSphcLayer):
    """`SphcLayer` whose local and non-local messages the kernels compute."""

    def sphc_constants(self, table: Tensor) -> list[Tensor]:
        """The fields of `SphcWeights`; their shift is the coefficient of a constant function.

        Args:
            table: of `function`, (intervals, 6, features), float64.
        """
        net = self.geometric_filter.spherical
        weight, beyond = net.out.weight, self.beyond()
        degrees = len(self.degrees)
        functions, coefficients = functions_of_distance(table, self.geometry.cutoff)
        functions = nn.functional.pad(functions, [0, 1])
        functions[:, 0, -1] = 1.0
        outside = torch.zeros_like(functions[:1])
        outside[:, 0, -1] = 1.0
        shift = beyond + or_zeros(net.out.bias, beyond[:, :1])
        functions, coefficients = whole_tiles(
            torch.cat([functions, outside]), torch.cat([coefficients, shift])
        )
        spherical = filled(filled(weight, degrees).t(), 1).t()
        inner = torch.cat([spherical, filled(coefficients.to(weight.dtype), degrees)])
        return [
            filled(net.hidden.weight, 1),
            filled(or_zeros(net.hidden.bias, net.hidden.weight[0] * 0.0)[None], 1)[0],
            fragments(inner),
            fragments(inner.t()).transpose(0, 1).contiguous(),
            weight[0, :0],
            functions.to(weight.dtype).contiguous(),
        ]


def filled(rows: Tensor, heads: int, tile: int = TILE) -> Tensor:
    """Rows (rows, features) with zeros after the features of each head, up to a multiple of `tile`."""
    width = rows.size(1) // heads
    return nn.functional.pad(rows.reshape(rows.size(0), heads, width), [0, -width % tile]).flatten(1)


def blocks(weight: Tensor, tile: int = TILE) -> Tensor:
    """A map of each head, (heads, width, width), as one matrix (features, columns) with these blocks."""
    padded = nn.functional.pad(weight, [0, -weight.size(2) % tile])
    own = torch.eye(weight.size(0), dtype=weight.dtype, device=weight.device)
    return (padded[:, :, None] * own[:, None, :, None]).flatten(2).flatten(0, 1)


def functions_of_distance(
    table: Tensor, end: float, closest: float = CLOSEST, tolerance: float = LOST
) -> tuple[Tensor, Tensor]:
    """Few functions b_k(r) and coefficients V with Σ_k b_k V_kf = the functions f of a table.

    Args:
        table: (intervals, 6, f), float64.
        end: of the table, Å.
        closest: distance from which on the functions are needed, Å.
        tolerance: largest difference, relative to the largest value.

    Returns:
        The table of b, (intervals, 6, k), and V (k, f).
    """
    values = torch.cat([table[:, 0], table.sum(1)[-1:]])
    values = values[int(closest * table.size(0) / end) :]
    directions = torch.linalg.svd(values, full_matrices=False)[2]
    k = 0
    lost = 1.0
    while lost > tolerance and k < directions.size(0):
        k += 1
        kept = directions[:k]
        lost = float((values @ kept.t() @ kept - values).abs().max() / values.abs().max())
    return table @ directions[:k].t(), directions[:k]


def whole_tiles(functions: Tensor, coefficients: Tensor, tile: int = TILE) -> tuple[Tensor, Tensor]:
    """Functions (intervals, 6, k) and coefficients (k, f) with zeros up to a multiple of `tile`."""
    extra = -coefficients.size(0) % tile
    return nn.functional.pad(functions, [0, extra]), nn.functional.pad(coefficients, [0, 0, 0, extra])


def fragments(right: Tensor) -> Tensor:
    """A right factor (k, n) as a warp holds it in a product, (n / 8, k / 16, 32 threads, 8) bfloat16.

    A thread has hi of rows 2 quad and 2 quad + 1 of both halves of 16 rows, then lo = right − hi of these;
    see kernels/gpu/device/product.h.
    """
    k, n = right.size(0), right.size(1)
    hi = right.to(torch.bfloat16)
    lo = (right - hi.to(right.dtype)).to(torch.bfloat16)
    split = torch.stack([hi, lo]).reshape(2, k // 16, 2, 4, 2, n // 8, 8)
    # from (part, step, half, quad, which, tile, group) to (tile, step, group, quad, part, half, which)
    return split.permute(5, 1, 6, 3, 0, 2, 4).reshape(n // 8, k // 16, 32, 8).contiguous()
