"""What the host reads of tensors: free on a CPU, while on a GPU it waits for all work that came before.

A step that reads nothing runs on a GPU without a pause. Code that would read to save work, such as the
selection of the pairs within a cutoff, asks here first; what it leaves out must contribute nothing anyway.
"""

import torch
from torch import Tensor

FEW = 65536


def reads_are_free(like: Tensor) -> bool:
    """Whether the host may read tensors on the device of this one without a wait."""
    return like.device.type == "cpu"


def rows_worth(mask: Tensor, few: int = FEW) -> Tensor:
    """The rows to compute, int64: those with True, or all of few rows on a GPU.

    Args:
        mask: whether a row contributes, (rows,) bool.
        few: largest number of rows for which a GPU computes all.
    """
    if reads_are_free(mask) or mask.size(0) > few:
        return torch.nonzero(mask)[:, 0]
    return torch.arange(mask.size(0), device=mask.device)
