"""Several processes that train one model, started by torchrun: each computes a share of every batch.

The first process alone writes files. All others have the same weights, optimiser and log at every step.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, distributed

from so3k_md.errors import So3kError

T = TypeVar("T")

# Environment variables in which mpirun and similar launchers state the number of processes.
LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
PATIENCE = timedelta(days=1)  # how long a process waits for the others, such as in a long validation


class World(NamedTuple):
    """The processes of a training."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The items of this process; all processes together have each once."""
        return items[self.rank :: self.size]

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def sum(self, tensors: Iterable[Tensor], *numbers: float) -> list[float]:
        """Replace tensors by their sums over all processes, in place; returns the sums of the numbers."""
        if self.size == 1:
            return list(numbers)
        parts = list(tensors)
        like = parts[0] if parts else torch.zeros(0)
        last = torch.tensor(numbers, dtype=like.dtype, device=like.device)
        joined = torch.cat([*(part.reshape(-1) for part in parts), last])
        distributed.all_reduce(joined)
        *totals, found = joined.split([*(part.numel() for part in parts), len(numbers)])
        for part, total in zip(parts, totals, strict=True):
            part.copy_(total.view_as(part))
        return found.tolist()

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in their order."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value)
        return found

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of the first process, in place."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)


def is_first_process() -> bool:
    """Whether this process is the first of those that torchrun started, or alone."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def world(device: torch.device) -> Iterator[World]:
    """The processes that torchrun started, or this one alone.

    Args:
        device: of the training.

    Raises:
        So3kError: the process is one of several that torchrun did not start.
    """
    count = os.environ.get("WORLD_SIZE", "1").strip()
    for name in LAUNCHERS:
        if os.environ.get(name, "1").strip() not in ("", "0", "1"):
            raise So3kError(
                f"this is one of {os.environ[name]} processes ({name}), and each would train the same model: "
                "start several processes with torchrun, or unset the variable"
            )
    if count in ("", "0", "1"):
        yield World()
        return
    if missing := [name for name in TORCHRUN if name not in os.environ]:
        raise So3kError(
            f"this is one of {count} processes (WORLD_SIZE), but {missing[0]} is not set: start it without "
            "WORLD_SIZE, or by torchrun, which sets both"
        )
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield World(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
