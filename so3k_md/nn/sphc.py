"""Neighborhoods in SPHC space: the pairs between which non-local attention of kind sphc acts.

Frank, Unke & Müller, NeurIPS 2022 (arXiv:2205.14276), Eq. (14) and the neighborhoods of its geometric
message. The published form runs over a whole structure, which is neither size-extensive nor separable; here
it runs within groups.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from so3k_md.graph import Groups
from so3k_md.nn.radial import polynomial_cutoff
from so3k_md.nn.segment import segment_sum
from so3k_md.reads import reads_are_free


class SphcPairs(NamedTuple):
    """Pairs of a group that are neighbors in SPHC space, φ_χ > 0."""

    idx_i: Tensor  # (pairs,) int64, centre, counted from the first of the tile
    idx_j: Tensor  # (pairs,) int64, source row
    r: Tensor  # (pairs,), distance in real space, Å
    phi: Tensor  # (pairs,), φ_χ
    alpha: Tensor  # (pairs, degrees), attention of each degree, without φ_χ
    ylm: Tensor  # (pairs, chi_width), harmonics of the direction


class SphcNeighbors(NamedTuple):
    """Pairs of a group that are neighbors in SPHC space, with the input of their attention."""

    idx_i: Tensor
    idx_j: Tensor
    r: Tensor
    phi: Tensor
    distance: Tensor  # (pairs, degrees), invariants of χ_i − χ_j
    beyond: Tensor  # (features,), radial part of the filters beyond the cutoff, where the basis is zero
    near: Tensor  # (near,) int64, the pairs that are also within the cutoff
    near_w: Tensor  # (near, features), what is added to `beyond` for these
    ylm: Tensor


def group_rows(group: Tensor, group_src: Tensor, own: Tensor) -> Groups:
    """The source rows of the group of each centre.

    Args:
        group: of the centres, (centres,) int64, any numbers.
        group_src: of the sources, (sources,) int64; every member of a centre's group is among them.
        own: the source row of the centre itself, (centres,) int64.
    """
    members = torch.argsort(group_src, stable=True)
    ordered = group_src.index_select(0, members)
    first = torch.searchsorted(ordered, group)
    return Groups(members, first, torch.searchsorted(ordered, group, right=True) - first, own)


def tile_bounds(size: Tensor, largest: int) -> list[int]:
    """Bounds of tiles of centres. A tile has at least one centre and about `largest` pairs.

    Args:
        size: pairs of each centre, (centres,) int64.
        largest: pairs in a tile.
    """
    if size.numel() == 0:
        return [0]
    tile = (torch.cumsum(size, 0) - size) // largest
    starts = torch.nonzero(tile[1:] != tile[:-1])[:, 0] + 1
    inner: list[int] = starts.tolist()
    return [0] + inner + [size.numel()]


def known_tiles(group: Sequence[int], largest: int) -> tuple[list[int], list[int]]:
    """`tile_bounds` of atoms whose groups are known before they are on a device, and the pairs of each tile.

    Args:
        group: of each atom, from 0.
        largest: pairs in a tile.
    """
    index = torch.tensor(group, dtype=torch.int64)
    size = torch.bincount(index).index_select(0, index)
    bounds = tile_bounds(size, largest)
    return bounds, [int((size[a:b] - 1).sum()) for a, b in pairwise(bounds)]


def group_pairs(groups: Groups, first: int, last: int, n_pairs: int = -1) -> tuple[Tensor, Tensor]:
    """All ordered pairs of different atoms of a group.

    Args:
        groups: of the centres.
        first: first centre.
        last: one after the last centre.
        n_pairs: their number; −1 if unknown, so that the host must read it.

    Returns:
        The centre counted from `first` and the source row, (pairs,) each.
    """
    others, start = groups.size[first:last] - 1, groups.first[first:last]
    if n_pairs < 0:
        n_pairs = int(others.sum())
    idx_i = torch.repeat_interleave(others, output_size=n_pairs)
    place = torch.arange(n_pairs, device=others.device)
    place = place - (torch.cumsum(others, 0) - others).index_select(0, idx_i)
    # members after the centre itself move up by one place, so that it is left out
    rows = torch.arange(groups.members.size(0), device=others.device)
    own = torch.empty_like(rows).scatter(0, groups.members, rows).index_select(0, groups.own[first:last])
    place = place + (place >= (own - start).index_select(0, idx_i)).to(torch.int64)
    return idx_i, groups.members.index_select(0, start.index_select(0, idx_i) + place)


def neighborhoods(distance: Tensor, idx_i: Tensor, size: Tensor, kappa: float, p: int) -> Tensor:
    """φ_χ(u_ij), u_ij = n s_ij / κ, s_ij = exp(d_ij) / Σ_k exp(d_ik) over the others k of the group.

    Neighbors have u < 1. The softmax rises with the distance, so that atoms near in SPHC space get small
    values. The maximum of d is subtracted before the exponential, which does not change s. φ_χ and its first
    two derivatives are continuous, except for the bare norm where an SPHC distance is zero.

    Args:
        distance: d_ij / T of all ordered pairs of the groups, (pairs,).
        idx_i: centres, (pairs,) int64.
        size: n, atoms of the group of each centre, (centres,) int64.
        kappa: κ of χ_cut = κ / n.
        p: order of the polynomial cutoff.

    Returns:
        (pairs,).
    """
    with torch.no_grad():
        peak = torch.zeros([size.numel()], dtype=distance.dtype, device=distance.device)
        peak = peak.scatter_reduce(0, idx_i, distance, "amax")
    weight = torch.exp(distance - peak.index_select(0, idx_i))
    share = size.to(weight.dtype) / (kappa * segment_sum(weight, idx_i, size.numel()))
    u = weight * share.index_select(0, idx_i)
    # u is clamped to 1, where value and derivatives are zero, because powers of a large u overflow
    return polynomial_cutoff(u.clamp(max=1.0), 1.0, p)


def pieces(pairs: Tensor, largest: int = 2048) -> list[int]:
    """Bounds of tiles of pairs whose rows of features fit the cache of a CPU; at least one tile.

    Args:
        pairs: one row for each pair.
        largest: rows of a tile.
    """
    if not reads_are_free(pairs) or pairs.size(0) == 0:
        return [0, pairs.size(0)]
    return list(range(0, pairs.size(0), largest)) + [pairs.size(0)]


def products(q: Tensor, k: Tensor, w: Tensor, idx_i: Tensor, idx_j: Tensor, heads: int) -> Tensor:
    """α_ij^h = Σ_f q_if w_ijf k_jf over the features f of head h, (pairs, heads).

    Args:
        q: of the centres, (centres, features).
        k: of the sources, (sources, features).
        w: filters, (pairs, features).
        idx_i: centres, (pairs,) int64.
        idx_j: sources, (pairs,) int64.
        heads: number of heads.
    """
    qwk = q.index_select(0, idx_i) * k.index_select(0, idx_j) * w
    return qwk.view(w.size(0), heads, w.size(1) // heads).sum(2)


def products_adjoint(
    q: Tensor, k: Tensor, w: Tensor, idx_i: Tensor, idx_j: Tensor, g_alpha: Tensor, g_q: Tensor, g_k: Tensor
) -> tuple[Tensor, Tensor]:
    """α of `products` and Σ g_alpha · ∂α/∂w; Σ g_alpha · ∂α/∂(q, k) is added to g_q and g_k in place.

    Arrays of pairs are overwritten after their last use, because memory traffic limits the speed.

    Args:
        q, k, w, idx_i, idx_j: as in `products`.
        g_alpha: (pairs, heads).
        g_q, g_k: of the shapes of q and k.
    """
    with torch.no_grad():
        by_head = [g_alpha.size(0), g_alpha.size(1), w.size(1) // g_alpha.size(1)]
        g_alpha = g_alpha[:, :, None]
        q_i, k_j = q.index_select(0, idx_i), k.index_select(0, idx_j)
        g_w = q_i * k_j
        qkw = g_w * w
        alpha = qkw.view(by_head).sum(2)
        g_w.view(by_head).mul_(g_alpha)
        g_alpha_w = qkw.copy_(w)
        g_alpha_w.view(by_head).mul_(g_alpha)
        g_q.index_add_(0, idx_i, k_j.mul_(g_alpha_w))
        g_k.index_add_(0, idx_j, q_i.mul_(g_alpha_w))
        return alpha, g_w
