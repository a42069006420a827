"""The loss that training minimises, and the errors that it reports."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from so3k_md.data import Frame, Targets
from so3k_md.graph import Graph
from so3k_md.model.forces import Evaluation
from so3k_md.nn.segment import segment_sum
from so3k_md.train.config import LossConfig


class Errors(NamedTuple):
    """Errors of the labelled entries of a batch, by the names of the labels."""

    energy: Tensor  # (labelled frames,), eV
    forces: Tensor  # (labelled atoms, 3), eV/Å
    stress: Tensor  # (labelled frames, 3, 3), eV/Å³
    dipole: Tensor  # (labelled frames, 3), e Å
    charges: Tensor  # (labelled atoms,), e
    hirshfeld_ratios: Tensor  # (labelled atoms,)
    n_atoms: Tensor  # (labelled frames,), atoms of the frames with an energy


def errors(evaluation: Evaluation, graph: Graph, targets: Targets) -> Errors:
    """Prediction minus reference, for all entries with a reference.

    The dipole is Σ q_i r_i about the origin of the positions. Models without charges have no errors of
    dipoles, charges and Hirshfeld ratios.

    Args:
        evaluation: of the batch.
        graph: of the batch.
        targets: its labels.
    """
    stress = -evaluation.virial / targets.volume[:, None, None]
    energy = (evaluation.energy - targets.energy)[targets.has_energy]
    forces = (evaluation.forces - targets.forces)[targets.has_forces]
    of_cells = (stress - targets.stress)[targets.has_stress]
    q, ratios = evaluation.outputs.charges, evaluation.outputs.ratios
    none = energy[:0]
    dipole, charges, volumes = none, none, none
    if q.numel() > 0:
        moments = segment_sum(q[:, None] * graph.positions, graph.frame, len(targets.energy))
        dipole = (moments - targets.dipole)[targets.has_dipole]
        charges = (q - targets.charges)[targets.has_charges]
        volumes = (ratios - targets.hirshfeld_ratios)[targets.has_hirshfeld_ratios]
    sizes = targets.n_atoms[targets.has_energy]
    return Errors(energy, forces, of_cells, dipole, charges, volumes, sizes)


def weighted_loss(
    errors: Errors, config: LossConfig, per_atom: bool = False, counts: Mapping[str, int] | None = None
) -> Tensor:
    """L = Σ_k w_k mean(h(error_k)) over the entries of each label, with weights of sum one.

    h(x) = x², and with δ = huber above zero 2 δ |x| − δ² where |x| > δ.

    Args:
        errors: of a batch.
        config: w and δ; the published weights are 0.01 for the energy and 0.99 for the forces.
        per_atom: divide the error of an energy by the number of atoms.
        counts: entries of each label in the whole batch, if these errors are a part of it; the losses of the
            parts then add up to that of the batch. None if they are the whole.
    """
    loss = torch.zeros((), dtype=torch.float64, device=errors.energy.device)
    for label in config.labels:
        error = getattr(errors, label)
        if label == "energy" and per_atom:
            error = error / errors.n_atoms
        if error.numel() > 0:
            found = penalty(error, config.huber)
            mean = found.mean() if counts is None else found.sum() / counts[label]
            loss = loss + getattr(config, label) * mean
    return loss / sum(getattr(config, label) for label in config.labels)


def entries(targets: Targets) -> dict[str, int]:
    """The number of entries of each label in a batch, as `errors` has them for a model with charges."""
    return {
        "energy": int(targets.has_energy.sum()),
        "forces": 3 * int(targets.has_forces.sum()),
        "stress": 9 * int(targets.has_stress.sum()),
        "dipole": 3 * int(targets.has_dipole.sum()),
        "charges": int(targets.has_charges.sum()),
        "hirshfeld_ratios": int(targets.has_hirshfeld_ratios.sum()),
    }


def divides_energies(loss: LossConfig, frames: Sequence[Frame]) -> bool:
    """Whether the loss divides energies by the number of atoms: where asked, or where the sizes differ."""
    if loss.energy_per_atom == "auto":
        return len({len(frame.numbers) for frame in frames if frame.energy is not None}) > 1
    return loss.energy_per_atom == "always"


def penalty(error: Tensor, delta: float) -> Tensor:
    """x², which continues as a straight line beyond δ; without one if δ = 0."""
    if delta == 0:
        return error * error
    size = error.abs()
    return torch.where(size > delta, delta * (2.0 * size - delta), error * error)
