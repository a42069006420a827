"""Evaluates many ASE structures in batches, in one call."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from so3k_md.graph import COULOMB, CUTOFF_LR
from so3k_md.kernels.choose import fitting_model

if TYPE_CHECKING:
    from ase import Atoms

    from so3k_md.evaluate import Prediction


def evaluate_atoms(
    model: str | Path | nn.Module,
    atoms_list: "Sequence[Atoms]",
    batch_size: int = 128,
    device: str = "cpu",
    dtype: torch.dtype | str | None = None,
    groups: str = "auto",
    coulomb: str = COULOMB[0],
    cutoff_lr: float = CUTOFF_LR,
    kernels: str = "auto",
) -> "list[Prediction]":
    """Energies, forces, stress, and of models with charges all that follows from them, of many structures.

    The results are those of `So3kCalculator`. Charge, spin, fragments and groups are read from `info` and
    `arrays` of each structure.

    Args:
        model: a checkpoint, an exported file, the name of a bundled model, or a model, which is not changed.
        atoms_list: structures of any size; their calculators are not used.
        batch_size: largest number of structures in a batch; large structures come in smaller batches.
        device: on which the model is evaluated.
        dtype: precision of the parameters, float32 or float64; None keeps the model's.
        groups, coulomb, cutoff_lr, kernels: as of `So3kCalculator`.

    Returns:
        One `Prediction` for each structure, in the order of the list.

    Raises:
        So3kError: as `So3kCalculator`; names the structure by its place in the list, from 0.
    """
    # imported here because `import so3k_md` needs torch and numpy only
    from so3k_md.data.structures import frames_of
    from so3k_md.evaluate import predict

    fitted = fitting_model(model, device, dtype, kernels)
    return predict(fitted, frames_of(atoms_list), batch_size, iter, groups, coulomb, cutoff_lr)
