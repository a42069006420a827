"""A layer with non-local attention between atoms near in SPHC space (sphc), and its backward pass."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from so3k_md.adjoint import gradients, leaf
from so3k_md.graph import SPHC_LARGE_TILE, SPHC_TILE, Edges, Graph, Groups, Reach, Rows
from so3k_md.nn.geometry import Geometry
from so3k_md.nn.layer import Layer, no_reach
from so3k_md.nn.segment import segment_sum
from so3k_md.nn.sphc import (
    SphcNeighbors,
    SphcPairs,
    group_pairs,
    group_rows,
    neighborhoods,
    pieces,
    products,
    products_adjoint,
    tile_bounds,
)
from so3k_md.reads import reads_are_free, rows_worth

if TYPE_CHECKING:
    from so3k_md.model_config import ModelConfig


class Step(NamedTuple):
    """The result of a layer with a separate autograd history."""

    inputs: list[Tensor]  # x, χ and the non-local message Δχ, leaves of the history
    rows: Rows  # after the layer


class SphcLayer(Layer):
    """`Layer` with Δχ_i^(l) += Σ_j φ_χ,ij α_ij^l Y^(l)(r̂_ij) over the neighbors j in SPHC space.

    Pairs of groups are evaluated tile by tile, and again in the backward pass (`adjoint`), so that memory is
    linear in the atoms. Arguments as in `Layer`.
    """

    def __init__(self, config: "ModelConfig", generator: torch.Generator, geometry: Geometry, is_first: bool):
        super().__init__(config, generator, geometry, is_first)
        self.geometry = geometry
        self.temperature, self.kappa, self.nonlocal_p = config.temperature, config.kappa, config.nonlocal_p
        self.tile, self.large_tile = SPHC_TILE, SPHC_LARGE_TILE
        self.recomputes = True

    def forward(self, rows: Rows, edges: Edges, reach: Reach) -> Rows:
        """Rows after the layer, where the sources are the centres themselves."""
        dx, dchi = self.attend(rows, rows, edges)
        return self.update(rows, dx, dchi + self.sphc_messages(rows, reach))

    def taped(self, rows: Rows, edges: Edges, reach: Reach) -> Step:
        """`forward` with a history that begins at its inputs and leaves out non-local messages.

        Args:
            rows: of all atoms.
            edges: leaves of the history.
            reach: groups.
        """
        with torch.no_grad():
            # copies: otherwise TorchScript reuses intermediate values of `attend`, without their history
            dchi_nonlocal = self.sphc_messages(Rows(rows.x.clone(), rows.chi.clone(), rows.r), reach)
        dchi_nonlocal = leaf(dchi_nonlocal)
        start = Rows(leaf(rows.x), leaf(rows.chi), rows.r)
        dx, dchi = self.attend(start, start, edges)
        return Step([start.x, start.chi, dchi_nonlocal], self.update(start, dx, dchi + dchi_nonlocal))

    @torch.jit.export
    def adjoint(
        self, step: Step, shared: list[Tensor], reach: Reach, g_x: Tensor, g_chi: Tensor
    ) -> list[Tensor]:
        """Derivatives by the inputs x, χ and r of a step and by `shared`, from derivatives by its rows.

        Args:
            step: of `taped`.
            shared: leaves that the histories of all steps share.
            reach: groups.
            g_x, g_chi: derivatives by x and χ after the layer.
        """
        g = gradients([step.rows.x, step.rows.chi], step.inputs + shared, [g_x, g_chi])
        rows = Rows(step.inputs[0], step.inputs[1], step.rows.r)
        sphc_x, sphc_chi, sphc_r = self.sphc_adjoint(rows, reach, g[2])
        return [g[0] + sphc_x, g[1] + sphc_chi, sphc_r] + g[3:]

    @torch.jit.export
    def tiles(self, groups: Groups) -> list[int]:
        """Bounds of the tiles of centres that `sphc_attend` computes at once."""
        return tile_bounds(groups.size, self.tile if reads_are_free(groups.size) else self.large_tile)

    def tiles_of(self, reach: Reach) -> tuple[list[int], list[int]]:
        """`tiles`, and the number of pairs in each, −1 if unknown."""
        if len(reach.tiles) > 0:
            return reach.tiles, reach.tile_pairs
        bounds = self.tiles(reach.groups)
        return bounds, [-1] * (len(bounds) - 1)

    @torch.jit.export
    def sphc_attend(self, centres: Rows, sources: Rows, groups: Groups, first: int, last: int) -> Tensor:
        """Messages Δχ to some centres; arguments as in `sphc_pairs`."""
        return self.sphc_message(self.sphc_pairs(centres, sources, groups, first, last), last - first)

    @torch.jit.export
    def sphc_pairs(self, centres: Rows, sources: Rows, groups: Groups, first: int, last: int) -> SphcPairs:
        """The pairs of groups that are neighbors in SPHC space, with their attention.

        Args:
            centres: rows of centres; the atoms of a group lie in one image.
            sources: rows of all members of the groups.
            groups: of `group_rows`.
            first: first centre.
            last: one after the last centre.
        """
        pairs = self.sphc_neighbors(centres, sources, groups, first, last, -1)
        query, key = self.sphc_rows(centres.x[first:last], sources.x)
        return self.attended(query, key, pairs)

    def sphc_messages(self, rows: Rows, reach: Reach) -> Tensor:
        """Messages Δχ to all atoms, computed tile by tile."""
        bounds, n_pairs = self.tiles_of(reach)
        query, key = self.sphc_rows(rows.x, rows.x)
        messages: list[Tensor] = []
        for tile in range(len(bounds) - 1):
            first, last = bounds[tile], bounds[tile + 1]
            pairs = self.sphc_neighbors(rows, rows, reach.groups, first, last, n_pairs[tile])
            messages.append(self.sphc_message(self.attended(query[first:last], key, pairs), last - first))
        return torch.cat(messages)

    def sphc_rows(self, x: Tensor, x_src: Tensor) -> tuple[Tensor, Tensor]:
        """Queries of the centres and keys of the sources, from which `sphc_alpha` computes the attention."""
        attention = self.geometric_attention.attention
        return attention.query(x) * attention.scale, attention.key(x_src)

    def sphc_neighbors(
        self, centres: Rows, sources: Rows, groups: Groups, first: int, last: int, n_pairs: int
    ) -> SphcNeighbors:
        """The pairs of groups that are neighbors in SPHC space; on a GPU all pairs, most with φ_χ = 0.

        Args:
            centres, sources, groups, first, last: as in `sphc_pairs`.
            n_pairs: as in `group_pairs`.
        """
        idx_i, idx_j = group_pairs(groups, first, last, n_pairs)
        chi, r = centres.chi[first:last], centres.r[first:last]
        difference = chi.index_select(0, idx_i) - sources.chi.index_select(0, idx_j)
        phi = self.neighborhood((difference * difference).sum(1), idx_i, groups.size[first:last])
        kept = rows_worth(phi > 0.0)
        idx_i, idx_j = idx_i.index_select(0, kept), idx_j.index_select(0, kept)
        phi, difference = phi.index_select(0, kept), difference.index_select(0, kept)
        vectors = (sources.r.index_select(0, idx_j) - r.index_select(0, idx_i)).to(chi.dtype)
        length = self.geometry.length(vectors)
        near = rows_worth(length < self.geometry.cutoff)
        # always damped, also if the local attention is not: otherwise these pairs jump at the cutoff
        beyond, near_w = self.radial_filters(self.geometry.damped_basis(length.index_select(0, near)))
        distance = self.chi_distance.of_squares(self.geometry.degree_sum(difference * difference))
        ylm = self.geometry.ylm(vectors, length)
        return SphcNeighbors(idx_i, idx_j, length, phi, distance, beyond, near, near_w, ylm)

    def neighborhood(self, square: Tensor, idx_i: Tensor, size: Tensor) -> Tensor:
        """φ_χ of the pairs of the groups from their ‖χ_i − χ_j‖², (pairs,)."""
        distance = torch.sqrt(square + (self.norm_eps * self.norm_eps + 1e-30)) - self.norm_eps
        return neighborhoods(distance / self.temperature, idx_i, size, self.kappa, self.nonlocal_p)

    def radial_filters(self, rbf: Tensor) -> tuple[Tensor, Tensor]:
        """Radial part of the filters beyond the cutoff, (features,), and what is added within it.

        Args:
            rbf: damped radial basis of pairs within the cutoff, (near, n_rbf); it is zero beyond the cutoff.
        """
        radial = self.geometric_filter.radial
        nothing = torch.zeros([1, rbf.size(1)], dtype=rbf.dtype, device=rbf.device)
        beyond = radial(nothing)
        return beyond[0], radial(rbf) - beyond

    def attended(self, query: Tensor, key: Tensor, pairs: SphcNeighbors) -> SphcPairs:
        """Pairs with their attention, from queries of the centres of a tile and keys of all sources."""
        alpha = self.sphc_alpha(query, key, pairs)
        return SphcPairs(pairs.idx_i, pairs.idx_j, pairs.r, pairs.phi, alpha, pairs.ylm)

    def sphc_message(self, pairs: SphcPairs, n_centres: int) -> Tensor:
        """Δχ_i^(l) = Σ_j φ_χ,ij α_ij^l Y^(l)(r̂_ij)."""
        weight = pairs.alpha * pairs.phi[:, None]
        return segment_sum(self.geometry.degree_sum.repeat(weight) * pairs.ylm, pairs.idx_i, n_centres)

    def sphc_alpha(self, query: Tensor, key: Tensor, pairs: SphcNeighbors) -> Tensor:
        """α of pairs with the weights of the geometric attention, (pairs, degrees).

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

    def sphc_adjoint(self, rows: Rows, reach: Reach, g_dchi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Σ g_dchi · ∂Δχ/∂(x, χ, r); computes one tile after the other again.

        Args:
            rows: of all atoms.
            reach: groups of all atoms.
            g_dchi: derivatives by the messages Δχ, (atoms, chi_width).
        """
        bounds, n_pairs = self.tiles_of(reach)
        x = leaf(rows.x)
        query, key = self.sphc_rows(x, x)
        g_query, g_key = torch.zeros_like(query), torch.zeros_like(key)
        g_chi, g_r = torch.zeros_like(rows.chi), torch.zeros_like(rows.r)
        for tile in range(len(bounds) - 1):
            first, last = bounds[tile], bounds[tile + 1]
            leaves = Rows(x, leaf(rows.chi), leaf(rows.r))
            pairs = self.sphc_neighbors(leaves, leaves, reach.groups, first, last, n_pairs[tile])
            seeds = self.pair_gradients(
                query[first:last], key, pairs, g_dchi[first:last], g_query[first:last], g_key
            )
            outputs = [pairs.phi, pairs.distance, pairs.near_w, pairs.ylm]
            found = gradients(outputs, [leaves.chi, leaves.r], seeds)
            g_chi += found[0]
            g_r += found[1]
        return gradients([query, key], [x], [g_query, g_key])[0], g_chi, g_r

    def pair_gradients(
        self, query: Tensor, key: Tensor, pairs: SphcNeighbors, g_dchi: Tensor, g_query: Tensor, g_key: Tensor
    ) -> list[Tensor]:
        """Σ g_dchi · ∂Δχ/∂(φ_χ, invariants, near filters, Y); adds those by query, key to g_query, g_key.

        With y^l = Σ_m g_ilm Y_lm: ∂/∂φ = Σ_l α^l y^l, ∂/∂α^l = φ y^l, ∂/∂Y^(l) = φ α^l g_i^(l).

        Args:
            query, key: of the centres of the tile and of all sources.
            pairs: of the tile.
            g_dchi: derivatives by the messages Δχ to its centres, (centres, chi_width).
            g_query, g_key: changed in place.
        """
        degree_sum = self.geometry.degree_sum
        with torch.no_grad():
            g_dchi = g_dchi.index_select(0, pairs.idx_i)
            y = degree_sum(g_dchi * pairs.ylm)
            g_alpha = pairs.phi[:, None] * y
        alpha, g_distance, g_near_w = self.sphc_alpha_adjoint(query, key, pairs, g_alpha, g_query, g_key)
        with torch.no_grad():
            g_ylm = degree_sum.repeat(alpha * pairs.phi[:, None]) * g_dchi
            return [(alpha * y).sum(1), g_distance, g_near_w, g_ylm]

    def sphc_alpha_adjoint(
        self,
        query: Tensor,
        key: Tensor,
        pairs: SphcNeighbors,
        g_alpha: Tensor,
        g_query: Tensor,
        g_key: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """α of `sphc_alpha`, and Σ g_alpha · ∂α/∂(invariants, near filters).

        Args:
            query, key, pairs: as in `sphc_alpha`.
            g_alpha: (pairs, degrees).
            g_query, g_key: Σ g_alpha · ∂α/∂(query, key) is added to them in place.
        """
        net = self.geometric_filter.spherical
        near = pairs.near
        near_i, near_j = pairs.idx_i.index_select(0, near), pairs.idx_j.index_select(0, near)
        near_g_alpha = g_alpha.index_select(0, near)
        near_alpha, g_near_w = products_adjoint(
            query, key, pairs.near_w, near_i, near_j, near_g_alpha, g_query, g_key
        )
        bounds = pieces(pairs.distance)
        parts: list[Tensor] = []
        g_distance: list[Tensor] = []
        for n in range(len(bounds) - 1):
            a, b = bounds[n], bounds[n + 1]
            idx_i, idx_j = pairs.idx_i[a:b], pairs.idx_j[a:b]
            distance = leaf(pairs.distance[a:b])
            w = net.shifted(distance, pairs.beyond)
            part, g_w = products_adjoint(query, key, w, idx_i, idx_j, g_alpha[a:b], g_query, g_key)
            parts.append(part)
            g_distance.append(gradients([w], [distance], [g_w])[0])
        return torch.cat(parts).index_add(0, near, near_alpha), torch.cat(g_distance), g_near_w


class SphcReach(nn.Module):
    """Finds the members of the group of each atom."""

    known: list[int]
    known_pairs: list[int]

    def __init__(self, config: "ModelConfig"):
        super().__init__()
        self.known, self.known_pairs = [], []  # tiles of all graphs, if known before they are

    def forward(self, graph: Graph) -> Reach:
        """The groups of a graph."""
        none = no_reach(graph)
        own = torch.arange(graph.species.size(0), device=graph.species.device)
        groups = self.group_rows(graph.group, graph.group, own)
        tiles, tile_pairs = none.tiles, none.tile_pairs
        if not reads_are_free(own):
            tiles, tile_pairs = self.known, self.known_pairs
        return Reach(groups, tiles, tile_pairs, none.waves, none.signed, none.blocks)

    @torch.jit.export
    def group_rows(self, group: Tensor, group_src: Tensor, own: Tensor) -> Groups:
        """The source rows of the group of each centre; see `nn.sphc.group_rows`."""
        return group_rows(group, group_src, own)
