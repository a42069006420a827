"""A layer with Euclidean fast attention between all atoms of a group, and the waves that it reads."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from so3k_md.graph import Edges, Graph, Reach, Rows
from so3k_md.nn.efa import EuclideanFastAttention, blocks, size_counts
from so3k_md.nn.geometry import Geometry
from so3k_md.nn.layer import Layer, no_reach
from so3k_md.nn.waves import WAVES
from so3k_md.reads import reads_are_free

if TYPE_CHECKING:
    from so3k_md.model_config import ModelConfig


class EfaLayer(Layer):
    """`Layer` with the messages of `EuclideanFastAttention`; arguments as there."""

    def __init__(self, config: "ModelConfig", generator: torch.Generator, geometry: Geometry, is_first: bool):
        super().__init__(config, generator, geometry, is_first)
        widths = config.efa_features, config.efa_values
        self.efa = EuclideanFastAttention(config.features, list(config.degrees), *widths, generator)

    def forward(self, rows: Rows, edges: Edges, reach: Reach) -> Rows:
        """Rows after the layer, where the sources are the centres themselves."""
        dx, dchi = self.attend(rows, rows, edges)
        efa = self.efa.within(rows.x, rows.chi, reach.waves, reach.signed, reach.blocks)
        return self.update(rows, dx + efa[0], dchi + efa[1])


class EfaReach(nn.Module):
    """Plane waves at the atoms. No group may be wider than the range of the waves.

    Args:
        config: shape of the model.
    """

    size_counts: list[tuple[int, int]]

    def __init__(self, config: "ModelConfig"):
        super().__init__()
        settings = config.efa_features // 2, config.efa_grid, config.efa_reach, config.efa_k_max
        self.efa_waves: Any = WAVES[config.efa_waves](*settings)
        self.max_group_diameter = config.max_group_diameter
        self.size_counts = []  # of the groups of all graphs, if known before they are

    def forward(self, graph: Graph) -> Reach:
        """The waves at all atoms of a graph.

        Waves of the reciprocal lattice include all images, so that the group must be the whole frame for the
        energy to be extensive.
        """
        group = graph.group if self.max_group_diameter > 0.0 else graph.frame
        counts = self.size_counts
        known = len(counts) > 0
        if not known:
            counts = size_counts(group, int(group.max()) + 1)
        # on a GPU the engine that knows the groups watches their diameters
        if not known or reads_are_free(group):
            with torch.no_grad():
                # a copy: otherwise TorchScript passes these projections to `waves` without their history
                r = graph.positions.clone()
                widths = self.diameter(self.support(r, group, int(group.max()) + 1))
            check_diameter(float(widths.max()), self.max_group_diameter)
        waves = self.waves(graph.positions, graph.cell, graph.frame)
        none = no_reach(graph)
        signed = self.signed(waves)
        return Reach(none.groups, none.tiles, none.tile_pairs, waves, signed, blocks(group, counts))

    @torch.jit.export
    def reserve(self, cell: Tensor) -> None:
        """Keep the waves of a cell (3, 3), and of cells a little different, for the calls that follow."""
        self.efa_waves.reserve(cell)

    @torch.jit.export
    def outgrown(self, cell: Tensor) -> Tensor:
        """Whether a cell (3, 3) needs other waves than the reserved ones, () bool on the device."""
        return self.efa_waves.outgrown(cell)

    @torch.jit.export
    def waves(self, r: Tensor, cell: Tensor, cell_of: Tensor) -> Tensor:
        """The plane waves at positions (centres, 3), Å; `cell_of` gives the cell of each centre."""
        return self.efa_waves(r, cell, cell_of)

    @torch.jit.export
    def signed(self, waves: Tensor) -> Tensor:
        """The waves with the signs of their weights."""
        return self.efa_waves.signed(waves)

    @torch.jit.export
    def support(self, r: Tensor, group: Tensor, n_groups: int) -> Tensor:
        """Extent of each group along each direction of the grid, for `diameter`."""
        return self.efa_waves.support(r, group, n_groups)

    @torch.jit.export
    def diameter(self, support: Tensor) -> Tensor:
        """An upper bound of the diameter of each group, Å; it must not exceed `max_group_diameter`."""
        return self.efa_waves.diameter(support)


def check_diameter(widest: float, limit: float) -> None:
    """Refuse a group wider than the range of the waves; a limit of 0 is none."""
    if limit > 0.0 and widest > limit:
        raise RuntimeError(
            f"[so3k] a group is {widest} A wide, more than efa_reach = {limit} A of "
            "this model: use smaller groups, or a model with a larger efa_reach"
        )
