"""Detects trial steps of a minimiser: these get an infinite energy, while dynamics stops with an error."""

import math

import torch
from torch import Tensor, nn

# OpenMM's minimiser first moves the atoms by sqrt(Σ d²) = 10 Å; in 1 fs a hydrogen at 1000 K moves 0.05 Å.
JUMP = 0.2  # Å
NEARER = 0.75  # of the distance of the trial before; line searches halve it


class Trials(nn.Module):
    """Decides whether positions that a model cannot describe are a trial of a line search.

    They are a trial if an atom has jumped since the last good positions, and if each successive trial is
    closer to the good positions than the one before. In dynamics atoms move on, so that a run stops at the
    second call at the latest.
    """

    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.jump = JUMP
        self.nearer = NEARER
        self.distance = math.inf  # between the last trial and the good positions, Å
        self.register_buffer("positions", torch.zeros((0, 3), dtype=torch.float64))

    @torch.jit.export
    def accept(self, positions: Tensor) -> None:
        """Remember good positions (atoms, 3), Å."""
        self.positions = positions
        self.distance = math.inf

    @torch.jit.export
    def refuses(self, positions: Tensor) -> bool:
        """Whether bad positions (atoms, 3), Å, are a trial; call it once for each."""
        if self.positions.size(0) == 0:
            return False
        moved = float(torch.linalg.vector_norm(positions - self.positions, dim=1).max())
        trial = moved > self.jump and moved < self.nearer * self.distance
        self.distance = moved
        return trial
