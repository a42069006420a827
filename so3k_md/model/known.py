"""Tells a model what is the same in all graphs that it will get, so that nobody reads it on a device."""

from collections.abc import Sequence
from typing import Any

import torch

from so3k_md.graph import SPHC_LARGE_TILE
from so3k_md.needs import needs_of
from so3k_md.nn.efa import size_counts
from so3k_md.nn.sphc import known_tiles


def tell(model: Any, periodic: bool, group: Sequence[int]) -> None:
    """Set what is known of the graphs, in place; the model must then get no others.

    On a GPU the caller also watches the diameters of groups, which `EfaReach` otherwise checks.

    Args:
        model: eager or exported.
        periodic: whether their cell is periodic along all axes; along none if not.
        group: of each atom, from 0.
    """
    physics, reach = model.energies.physics, model.representation.reach
    if physics is not None:
        physics.boundary = "periodic" if periodic else "open"
    kind = needs_of(model).nonlocal_kind
    if kind == "sphc":
        reach.known, reach.known_pairs = known_tiles(group, SPHC_LARGE_TILE)
    if kind == "efa":
        by_group = torch.tensor(group) if reach.max_group_diameter > 0.0 else torch.zeros(len(group))
        reach.size_counts = size_counts(by_group.to(torch.int64), int(by_group.max()) + 1)
