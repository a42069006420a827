"""What a training consists of: its settings, model, data and progress."""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from so3k_md.data import Dataset
from so3k_md.model import So3krates
from so3k_md.train.config import RunConfig
from so3k_md.train.optimizer import Optimizer
from so3k_md.train.parallel import World


class Progress(NamedTuple):
    """The progress of a training."""

    epoch: int = 0  # completed epochs
    step: int = 0  # completed steps of the current epoch
    total: float = 0.0  # sum of the losses of these steps
    loss: float = math.nan  # mean loss of the last completed epoch
    best: float = math.inf  # validation loss of best.ckpt


class Run(NamedTuple):
    """All objects of one training."""

    config: RunConfig
    folder: Path
    device: torch.device
    model: So3krates
    optimizer: Optimizer
    average: dict[str, Tensor]
    train_set: Dataset
    valid_set: Dataset
    frames: dict[str, Tensor]  # fingerprint of the frames
    per_atom: bool  # whether the loss divides energies by the number of atoms
    world: World

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the training frames."""
        return math.ceil(len(self.train_set) / self.config.train.batch_size)

    def is_due(self, epoch: int) -> bool:
        """Whether a validation follows an epoch."""
        settings = self.config.train
        return epoch > 0 and (epoch % settings.valid_every == 0 or epoch == settings.epochs)
