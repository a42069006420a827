"""How much to compute at once."""

from torch import Tensor


def tile_on(like: Tensor, tile: int) -> int:
    """`tile` on a CPU, whose cache temporaries are to fit; a hundred times that on a GPU, to keep it busy.

    Args:
        like: a tensor on the device.
        tile: numbers in one temporary.
    """
    return tile if like.device.type == "cpu" else 100 * tile
