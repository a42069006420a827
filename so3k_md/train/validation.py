"""Errors of a model over the validation frames, and whether they still fall."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from so3k_md.data import Dataset
from so3k_md.data.batches import LARGEST_BATCH, chunks
from so3k_md.data.frames import CHARGE_LABELS, LABELS
from so3k_md.model import So3krates
from so3k_md.model.forces import evaluate
from so3k_md.train.config import LossConfig
from so3k_md.train.loss import Errors, errors, weighted_loss
from so3k_md.train.parallel import World
from so3k_md.train.run import Run
from so3k_md.train.stopping import Request


class Validation(NamedTuple):
    """Errors over the validation frames; nan where a label is missing."""

    loss: float
    energy_mae: float  # eV
    forces_mae: float  # eV/Å
    stress_mae: float  # eV/Å³
    dipole_mae: float  # e Å
    charges_mae: float  # e
    hirshfeld_ratios_mae: float


def validate(
    model: So3krates,
    dataset: Dataset,
    loss: LossConfig,
    batch_size: int,
    device: torch.device,
    request: Request | None = None,
    per_atom: bool = False,
    processes: World | None = None,
) -> Validation | None:
    """Loss and mean absolute errors over a data set; None if a signal asks to stop."""
    processes = World() if processes is None else processes
    collected = []
    for chunk in processes.share(list(chunks(dataset, batch_size, most_pairs=LARGEST_BATCH))):
        if request is not None and request.made:
            break
        graph, targets = dataset.batch(chunk).to(device)
        evaluation = evaluate(model, graph, len(targets.energy))
        collected.append([error.detach() for error in errors(evaluation, graph, targets)])
    stopped = request is not None and request.made
    found = processes.gather((stopped, collected))
    if any(stops for stops, _ in found):
        return None
    everything = [parts for _, of_process in found for parts in of_process]
    whole = Errors(*(torch.cat(parts) for parts in zip(*everything, strict=True)))
    sizes = (getattr(whole, label).abs() for label in (*LABELS, *CHARGE_LABELS))
    maes = [float(size.mean()) if size.numel() else math.nan for size in sizes]
    return Validation(float(weighted_loss(whole, loss, per_atom)), *maes)


def is_stalled(losses: Sequence[float], patience: int) -> bool:
    """Whether the last `patience` losses are no lower than all before; never if `patience` is 0."""
    return 0 < patience < len(losses) and min(losses[-patience:]) >= min(losses[:-patience])


def validate_average(run: Run, request: Request) -> Validation | None:
    """Validation errors of the averaged weights; afterwards the model has its own weights again."""
    own = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.model.load_state_dict(run.average)
    config = run.config
    result = validate(
        run.model, run.valid_set, config.loss, config.train.valid_batch_size, run.device, request,
        run.per_atom, run.world,
    )  # fmt: skip
    run.model.load_state_dict(own)
    return result
