"""Layers whose local messages are computed by the kernels for GPUs."""

import torch
from torch import Tensor, nn

from so3k_md.graph import Edges
from so3k_md.kernels.layer import KernelLayer, or_zeros
from so3k_md.kernels.table import CLOSEST
from so3k_md.nn.efa_layer import EfaLayer
from so3k_md.nn.geometry import Geometry
from so3k_md.nn.sphc_layer import SphcLayer

TILE = 16  # columns of a factor of a product; widths are filled up with zeros to multiples of it
LOST = 3e-7  # of the filters, relative to the largest, by too few functions of the distance


class GpuGeometry(Geometry):
    """`Geometry` without the radial basis, which the kernels read from tables.

    Pairs have to be listed in the order of their centres, as in every list of `structure` and of LAMMPS. With
    other lists all distances are NaN: a check that raised an error would wait for the GPU.
    """

    def forward(self, vectors: Tensor, idx_i: Tensor, idx_j: Tensor, like: Tensor) -> Edges:
        """Everything that layers read of local pairs; arguments as in `Geometry`."""
        vectors = vectors.to(like.dtype)
        r = self.length(vectors)
        in_order = (idx_i[1:] >= idx_i[:-1]).all()
        r = torch.where(in_order, r, torch.full_like(r, float("nan")))
        no_back = torch.empty([0], dtype=torch.bool, device=r.device)
        return Edges(idx_i, idx_j, r[:, None], self.ylm(vectors, r), self.cutoff_function(r), r, no_back)


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
        small, coefficients = functions_of_distance(table, self.geometry.cutoff)
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
            small.to(value.dtype).contiguous(),
        ]

    def columns(self, x: Tensor, chi: Tensor) -> Tensor:
        """Rows (rows, features) of both filters side by side in the columns of the kernels."""
        return torch.cat([filled(x, self.n_heads), filled(chi, len(self.degrees))], 1)


class GpuEfaLayer(GpuLayer, EfaLayer):
    """`EfaLayer` whose local messages the kernels compute."""


class GpuSphcLayer(GpuLayer, SphcLayer):
    """`SphcLayer` whose local messages the kernels compute."""


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
    table: Tensor, end: float, closest: float = CLOSEST, tolerance: float = LOST, tile: int = TILE
) -> tuple[Tensor, Tensor]:
    """Few functions b_k(r) and coefficients V with Σ_k b_k V_kf = the functions f of a table.

    Args:
        table: (intervals, 6, f), float64.
        end: of the table, Å.
        closest: distance from which on the functions are needed, Å.
        tolerance: largest difference, relative to the largest value.
        tile: k is a multiple of it.

    Returns:
        The table of b, (intervals, 6, k), and V (k, f).
    """
    values = torch.cat([table[:, 0], table.sum(1)[-1:]])
    values = values[int(closest * table.size(0) / end) :]
    directions = torch.linalg.svd(values, full_matrices=False)[2]
    k = 0
    lost = 1.0
    while lost > tolerance and k < directions.size(0):
        k += tile
        kept = directions[:k]
        lost = float((values @ kept.t() @ kept - values).abs().max() / values.abs().max())
    kept = directions[:k]
    kept = nn.functional.pad(kept, [0, 0, 0, -kept.size(0) % tile])
    return table @ kept.t(), kept


def fragments(right: Tensor) -> Tensor:
    """A right factor (k, n) as the threads of a warp hold it in a product, (n / 8, k / 16, 32, 8) bfloat16.

    A thread has hi of rows 2 quad and 2 quad + 1 of both halves of 16 rows, then lo = right − hi of these. See
    kernels/gpu/device/product.h.
    """
    k, n = right.size(0), right.size(1)
    hi = right.to(torch.bfloat16)
    lo = (right - hi.to(right.dtype)).to(torch.bfloat16)
    split = torch.stack([hi, lo]).reshape(2, k // 16, 2, 4, 2, n // 8, 8)
    # from (part, step, half, quad, which, tile, group) to (tile, step, group, quad, part, half, which)
    return split.permute(5, 1, 6, 3, 0, 2, 4).reshape(n // 8, k // 16, 32, 8).contiguous()
