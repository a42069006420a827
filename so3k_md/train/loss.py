"""The loss that training minimises, and the errors that it reports."""

from typing import NamedTuple

import torch
from torch import Tensor

from so3k_md.data import Targets
from so3k_md.model.forces import Evaluation
from so3k_md.train.config import LossConfig


class Errors(NamedTuple):
    """Errors of the labelled entries of a batch."""

    energy: Tensor  # (labelled frames,), eV
    forces: Tensor  # (labelled atoms, 3), eV/Å
    stress: Tensor  # (labelled frames, 3, 3), eV/Å³


def errors(evaluation: Evaluation, targets: Targets) -> Errors:
    """Prediction minus reference, for all entries with a reference."""
    stress = -evaluation.virial / targets.volume[:, None, None]
    return Errors(
        energy=(evaluation.energy - targets.energy)[targets.has_energy],
        forces=(evaluation.forces - targets.forces)[targets.has_forces],
        stress=(stress - targets.stress)[targets.has_stress],
    )


def weighted_loss(errors: Errors, weights: LossConfig) -> Tensor:
    """L = Σ_k w_k mean(error_k²) over energy per structure, force and stress components, weights of sum one.

    Args:
        errors: of a batch.
        weights: w; the published values are 0.01 for the energy and 0.99 for the forces.
    """
    loss = torch.zeros((), dtype=torch.float64, device=errors.energy.device)
    for weight, error in zip((weights.energy, weights.forces, weights.stress), errors, strict=True):
        if weight > 0 and error.numel() > 0:
            loss = loss + weight * (error * error).mean()
    return loss / (weights.energy + weights.forces + weights.stress)
