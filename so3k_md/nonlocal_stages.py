"""The stages of attention beyond the cutoff, kept apart from the model they belong to for its length."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from so3k_md.adjoint import gradients, leaf
from so3k_md.graph import Graph
from so3k_md.nn.nonlocal_sphc import (
    FarNeighbours,
    FarPairs,
    Groups,
    group_pairs,
    group_rows,
    tile_bounds,
)
from so3k_md.nn.segment import segment_sum


class FarStages(nn.Module):
    """What `So3krates` does within groups: `sphc` by pairs that are near in SPHC space, `efa` by plane waves.

    Both kinds of message follow from the input of a layer and are added to those of its local neighbours.
    """

    has_sphc: torch.jit.Final[bool]  # type: ignore[misc]
    has_efa: torch.jit.Final[bool]  # type: ignore[misc]

    if TYPE_CHECKING:  # the parts of So3krates; TorchScript would take them for attributes of its own
        layers: Any
        harmonics: Any
        degree_sum: Any
        radial_basis: Any
        cutoff_function: Any
        efa_waves: Any
        cutoff: float
        direction: float
        far_reach: float
        tile: int

    @torch.jit.export
    def group_rows(self, group: Tensor, group_src: Tensor, own: Tensor) -> Groups:
        """sphc: where each centre finds the members of its group; see `nn.nonlocal_sphc.group_rows`."""
        return group_rows(group, group_src, own)

    @torch.jit.export
    def tiles(self, groups: Groups) -> list[int]:
        """sphc: bounds of the runs of centres that `far_attend` shall take at once."""
        # a GPU needs more pairs to be busy, and has no cache to stay in
        return tile_bounds(groups.size, self.tile * 16 if groups.size.is_cuda else self.tile)

    def far_rows(self, k: int, x: Tensor, x_src: Tensor) -> tuple[Tensor, Tensor]:
        """sphc: queries of the centres and keys of the sources of layer k."""
        query, key = x, x_src
        for i, layer in enumerate(self.layers):
            if i == k:
                query, key = layer.far_rows(x, x_src)
        return query, key

    def far_neighbours(
        self,
        k: int,
        chi: Tensor,
        r: Tensor,
        chi_src: Tensor,
        r_src: Tensor,
        groups: Groups,
        first: int,
        last: int,
    ) -> FarNeighbours:
        """sphc: the pairs of groups that are neighbours in SPHC space in layer k; see `far_pairs`."""
        if not self.has_sphc:
            raise RuntimeError("[so3k] this model has no attention of the kind sphc")
        idx_i, idx_j = group_pairs(groups, first, last)
        chi, r = chi[first:last], r[first:last]
        difference = chi.index_select(0, idx_i) - chi_src.index_select(0, idx_j)
        phi = distance = beyond = near_w = difference
        for i, layer in enumerate(self.layers):
            if i == k:
                phi = layer.neighbourhood((difference * difference).sum(1), idx_i, groups.size[first:last])
        kept = torch.nonzero(phi > 0.0)[:, 0]
        idx_i, idx_j = idx_i.index_select(0, kept), idx_j.index_select(0, kept)
        phi, difference = phi.index_select(0, kept), difference.index_select(0, kept)
        vectors = (r_src.index_select(0, idx_j) - r.index_select(0, idx_i)).to(chi.dtype)
        length = torch.sqrt((vectors * vectors).sum(1).clamp(min=1e-24))
        near = torch.nonzero(length < self.cutoff)[:, 0]
        near_length = length.index_select(0, near)
        # damped also where the local attention is not: far pairs must not jump at the cutoff
        rbf = self.radial_basis(near_length) * self.cutoff_function(near_length)[:, None]
        for i, layer in enumerate(self.layers):
            if i == k:
                distance = layer.chi_distance.of_squares(self.degree_sum(difference * difference))
                beyond, near_w = layer.radial_filters(rbf)
        ylm = self.harmonics(vectors * (self.direction / length)[:, None])
        return FarNeighbours(idx_i, idx_j, length, phi, distance, beyond, near, near_w, ylm)

    @torch.jit.export
    def far_pairs(
        self,
        k: int,
        x: Tensor,
        chi: Tensor,
        r: Tensor,
        x_src: Tensor,
        chi_src: Tensor,
        r_src: Tensor,
        groups: Groups,
        first: int,
        last: int,
    ) -> FarPairs:
        """sphc: the pairs of groups that are neighbours in SPHC space, with their attention in layer k.

        Args:
            k: layer.
            x, chi: rows of the centres.
            r: positions of the centres, (centres, 3), Å, the atoms of a group in one image.
            x_src, chi_src, r_src: the same of the sources.
            groups: of `group_rows`.
            first: first centre.
            last: one after the last centre.
        """
        pairs = self.far_neighbours(k, chi, r, chi_src, r_src, groups, first, last)
        query, key = self.far_rows(k, x[first:last], x_src)
        return self.attended(k, query, key, pairs)

    def attended(self, k: int, query: Tensor, key: Tensor, pairs: FarNeighbours) -> FarPairs:
        """sphc: pairs with their attention, from queries of the centres of a tile and keys of all sources."""
        alpha = query
        for i, layer in enumerate(self.layers):
            if i == k:
                alpha = layer.far_alpha(query, key, pairs)
        return FarPairs(pairs.idx_i, pairs.idx_j, pairs.r, pairs.phi, alpha, pairs.ylm)

    def far_message(self, pairs: FarPairs, n_centres: int) -> Tensor:
        """sphc: Δχ_i^(l) = Σ_j φ_χ,ij α_ij^l Y^(l)(r̂_ij)."""
        weight = pairs.alpha * pairs.phi[:, None]
        return segment_sum(self.degree_sum.repeat(weight) * pairs.ylm, pairs.idx_i, n_centres)

    @torch.jit.export
    def far_attend(
        self,
        k: int,
        x: Tensor,
        chi: Tensor,
        r: Tensor,
        x_src: Tensor,
        chi_src: Tensor,
        r_src: Tensor,
        groups: Groups,
        first: int,
        last: int,
    ) -> Tensor:
        """sphc: Δχ of layer k to some centres; see `far_pairs` and `far_message`."""
        pairs = self.far_pairs(k, x, chi, r, x_src, chi_src, r_src, groups, first, last)
        return self.far_message(pairs, last - first)

    def far_messages(self, k: int, x: Tensor, chi: Tensor, r: Tensor, groups: Groups) -> Tensor:
        """sphc: Δχ of layer k to all atoms, tile after tile."""
        bounds = self.tiles(groups)
        query, key = self.far_rows(k, x, x)
        messages: list[Tensor] = []
        for tile in range(len(bounds) - 1):
            first, last = bounds[tile], bounds[tile + 1]
            pairs = self.far_neighbours(k, chi, r, chi, r, groups, first, last)
            messages.append(self.far_message(self.attended(k, query[first:last], key, pairs), last - first))
        return torch.cat(messages)

    def far_adjoint(
        self, k: int, x: Tensor, chi: Tensor, r: Tensor, groups: Groups, slope: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """sphc: Σ slope · ∂Δχ/∂(x, χ, r) of layer k; tiles are evaluated anew, one at a time."""
        bounds = self.tiles(groups)
        x = leaf(x)
        query, key = self.far_rows(k, x, x)
        g_query, g_key = torch.zeros_like(query), torch.zeros_like(key)
        g_chi, g_r = torch.zeros_like(chi), torch.zeros_like(r)
        for tile in range(len(bounds) - 1):
            first, last = bounds[tile], bounds[tile + 1]
            chi, r = leaf(chi), leaf(r)
            pairs = self.far_neighbours(k, chi, r, chi, r, groups, first, last)
            seeds = self.pair_slopes(
                k, query[first:last], key, pairs, slope[first:last], g_query[first:last], g_key
            )
            found = gradients([pairs.phi, pairs.distance, pairs.near_w, pairs.ylm], [chi, r], seeds)
            g_chi += found[0]
            g_r += found[1]
        return gradients([query, key], [x], [g_query, g_key])[0], g_chi, g_r

    def pair_slopes(
        self,
        k: int,
        query: Tensor,
        key: Tensor,
        pairs: FarNeighbours,
        slope: Tensor,
        g_query: Tensor,
        g_key: Tensor,
    ) -> list[Tensor]:
        """sphc: Σ slope · ∂Δχ/∂ of φ_χ, invariants, near filters and Y; of queries and keys it is added up.

        With y^l = Σ_m slope_ilm Y_lm: ∂/∂φ = Σ_l α^l y^l, ∂/∂α^l = φ y^l, ∂/∂Y^(l) = φ α^l slope_i^(l).

        Args:
            k: layer.
            query, key: of the centres of the tile and of all sources.
            pairs: of the tile.
            slope: of the messages Δχ to its centres, (centres, chi_width).
            g_query, g_key: what is added to.
        """
        with torch.no_grad():
            slope = slope.index_select(0, pairs.idx_i)
            y = self.degree_sum(slope * pairs.ylm)
            g_alpha = pairs.phi[:, None] * y
        alpha = g_distance = g_near_w = g_alpha
        for i, layer in enumerate(self.layers):
            if i == k:
                found = layer.far_alpha_adjoint(query, key, pairs, g_alpha, g_query, g_key)
                alpha, g_distance, g_near_w = found
        with torch.no_grad():
            g_ylm = self.degree_sum.repeat(alpha * pairs.phi[:, None]) * slope
            return [(alpha * y).sum(1), g_distance, g_near_w, g_ylm]

    @torch.jit.export
    def waves(self, r: Tensor, cell: Tensor, cell_of: Tensor) -> Tensor:
        """efa: the plane waves at positions (centres, 3), Å, of which each centre is in cell `cell_of`."""
        if self.has_efa:
            return self.efa_waves(r, cell, cell_of)
        raise RuntimeError("[so3k] this model has no attention of the kind efa")

    @torch.jit.export
    def far_whole(
        self, k: int, x: Tensor, chi: Tensor, waves: Tensor, group: Tensor, n_groups: int
    ) -> tuple[Tensor, Tensor]:
        """efa: messages (Δx, Δχ) of layer k within groups whose atoms are all given."""
        dx, dchi = x, chi
        if self.has_efa:
            for i, layer in enumerate(self.layers):
                if i == k:
                    signed = self.efa_waves.signed(waves)
                    dx, dchi = layer.efa(x, chi, waves, signed, group, n_groups)
        return dx, dchi

    @torch.jit.export
    def far_sums(self, k: int, x: Tensor, chi: Tensor, waves: Tensor, group: Tensor, n_groups: int) -> Tensor:
        """efa: Σ_j k_j ⊗ v_j of layer k over the given atoms of each group, (n_groups, width)."""
        sums = x
        if self.has_efa:
            for i, layer in enumerate(self.layers):
                if i == k:
                    sums = layer.efa.sums(x, chi, waves, group, n_groups)
        return sums

    @torch.jit.export
    def far_read(
        self, k: int, x: Tensor, chi: Tensor, waves: Tensor, group: Tensor, sums: Tensor
    ) -> tuple[Tensor, Tensor]:
        """efa: messages (Δx, Δχ) of layer k from the sums over whole groups."""
        dx, dchi = x, chi
        if self.has_efa:
            for i, layer in enumerate(self.layers):
                if i == k:
                    dx, dchi = layer.efa.read(x, chi, self.efa_waves.signed(waves), group, sums)
        return dx, dchi

    @torch.jit.export
    def support(self, r: Tensor, group: Tensor, n_groups: int) -> Tensor:
        """efa: how far each group reaches along each direction of the grid, for `diameter`."""
        if self.has_efa:
            return self.efa_waves.support(r, group, n_groups)
        return torch.zeros([n_groups, 0], dtype=r.dtype, device=r.device)

    @torch.jit.export
    def diameter(self, support: Tensor) -> Tensor:
        """efa: an upper bound of the diameter of each group, Å, which `far_reach` must not be below."""
        if self.has_efa:
            return self.efa_waves.diameter(support)
        return torch.zeros([support.size(0)], dtype=support.dtype, device=support.device)

    def checked_waves(self, graph: Graph) -> tuple[Tensor, Tensor, int]:
        """efa: the waves at all atoms, the groups, none wider than the waves reach, and their number.

        Waves of the lattice reach all images, so that only the whole frame is an extensive group.
        """
        group = graph.group if self.far_reach > 0.0 else graph.frame
        n_groups = int(group.max()) + 1
        with torch.no_grad():
            # a copy: TorchScript would hand the projections made here on to `waves`, without their graph
            r = graph.positions.clone()
            widest = float(self.diameter(self.support(r, group, n_groups)).max())
        if self.far_reach > 0.0 and widest > self.far_reach:
            raise RuntimeError(
                f"[so3k] a group is {widest} A wide, the waves of this model reach {self.far_reach} A: "
                "use smaller groups, or a model with a larger efa_reach"
            )
        return self.waves(graph.positions, graph.cell, graph.frame), group, n_groups
