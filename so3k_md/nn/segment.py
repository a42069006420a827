"""Sums over the pairs of each centre."""

import torch
from torch import Tensor


def segment_sum(values: Tensor, index: Tensor, n_segments: int) -> Tensor:
    """y_s = sum of the rows of `values` whose `index` is s.

    Args:
        values: rows to add, (rows, …).
        index: segment of each row, (rows,) int64.
        n_segments: number of segments; empty ones are zero.
    """
    total = torch.zeros([n_segments] + list(values.shape[1:]), dtype=values.dtype, device=values.device)
    return total.index_add(0, index, values)
