"""The size of tiles on different devices."""

from torch import Tensor


def tile_on(like: Tensor, tile: int) -> int:
    """`tile` on a CPU, so that temporary arrays fit its cache; a hundred times `tile` on a GPU, to fill it.

    Args:
        like: a tensor on the device.
        tile: numbers in one temporary array.
    """
    return tile if like.device.type == "cpu" else 100 * tile
