"""What the host reads of tensors: free on a CPU, while on a GPU it waits for all work that came before.

A step that reads nothing runs on a GPU without a pause. Code that would read to save work, such as the
selection of the pairs within a cutoff, asks here first; what it leaves out must contribute nothing anyway.
"""

import torch
from torch import Tensor


def reads_are_free(like: Tensor) -> bool:
    """Whether the host may read tensors on the device of this one without a wait."""
    return like.device.type == "cpu"


def rows_worth(mask: Tensor) -> Tensor:
    """The rows to compute, int64: those with True on a CPU, all elsewhere.

    Args:
        mask: whether a row contributes, (rows,) bool.
    """
    if reads_are_free(mask):
        return torch.nonzero(mask)[:, 0]
    return torch.arange(mask.size(0), device=mask.device)
