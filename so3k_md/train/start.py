"""Starts a training from another model: its element energies, the weights to train, and replayed frames."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from torch import nn

from so3k_md.checkpoint import eager, load, metadata
from so3k_md.data import Frame, make_split, read_frames
from so3k_md.data.read import READING
from so3k_md.data.statistics import least_squares
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.evaluate import Prediction, predict
from so3k_md.model import So3krates, weights_hash
from so3k_md.model.parts import PLAIN, Parts
from so3k_md.needs import with_needs
from so3k_md.train.config import DataConfig, StartConfig

MOST_FITTED = 1000  # frames to which element energies are refitted


def start_model(path: str, elements: Sequence[int], parts: Parts = PLAIN) -> So3krates:
    """The model of a file as an eager one, which also accepts other elements.

    Args:
        path: checkpoint, exported file, or name of a bundled model.
        elements: atomic numbers of the new data.
        parts: of the model.

    Raises:
        So3kError: the file cannot be read, its constants are rounded, or it has no room for an element.
    """
    model = eager(load(path), parts)
    new = sorted(set(elements) - set(model.needs.elements))
    if new and new[-1] >= model.config.n_species:
        raise So3kError(
            f"{path} has no room for {chemical_symbols[new[-1]]}: its n_species is {model.config.n_species}; "
            "start from another model, or train a new one"
        )
    if new:
        names = ", ".join(chemical_symbols[z] for z in new)
        warnings.warn(
            f"{path} was not trained on {names}: its weights start at random", So3kWarning, stacklevel=2
        )
    return with_needs(model, elements=sorted({*model.needs.elements, *elements}))


def choose_weights(model: So3krates, strategy: str) -> None:
    """Freeze all weights that a strategy does not train, in place.

    full and lora train all; first the embeddings and the first layer; last the last layer and the heads; head
    the heads.
    """
    representation, energies = model.representation, model.energies
    embeddings = [representation.embedding, representation.charge_and_spin]
    parts: dict[str, list[nn.Module | None]] = {
        "full": [model],
        "lora": [model],
        "first": [*embeddings, representation.layers[0]],
        "last": [representation.layers[-1], energies],
        "head": [energies],
    }
    model.requires_grad_(False)
    for part in parts[strategy]:
        if part is not None:
            part.requires_grad_(True)


def refit_elements(model: So3krates, frames: Sequence[Frame], batch_size: int) -> None:
    """Add to the element energies of a model, in place, what fits the energies of the frames best.

    Δb minimises Σ (E − E_model − Σ_Z n_Z Δb_Z)²; the solution of smallest norm if the compositions do not
    determine it. Another level of theory differs mostly in the energies of atoms.

    Args:
        model: eager.
        frames: those without an energy are ignored; of many, MOST_FITTED that are evenly distributed count.
        batch_size: frames evaluated at once.
    """
    labelled = [frame for frame in frames if frame.energy is not None]
    if labelled:
        chosen = np.unique(np.linspace(0, len(labelled) - 1, MOST_FITTED).astype(int))
        fitted = [labelled[i] for i in chosen]
        change = element_errors(fitted, predict(model, fitted, batch_size))
        for z, energy in change.items():
            model.energies.head.shift[z] += energy


def element_errors(frames: Sequence[Frame], predictions: Sequence[Prediction]) -> dict[int, float]:
    """Energies by atomic number, eV, that explain reference minus prediction best."""
    both = [(f, float(f.energy), p) for f, p in zip(frames, predictions, strict=True) if f.energy is not None]
    if not both:
        return {}
    elements = np.unique(np.concatenate([frame.numbers for frame, _, _ in both]))
    counts = np.array([[(frame.numbers == z).sum() for z in elements] for frame, _, _ in both], np.float64)
    errors = np.array([energy - found.energy for _, energy, found in both])
    return dict(zip(elements.tolist(), least_squares(counts, errors).tolist(), strict=True))


def replayed(model: So3krates, start: StartConfig, data: DataConfig, batch_size: int) -> list[Frame]:
    """The frames that are mixed in, on the energy scale of a model whose element energies were refitted.

    Their labels are the predictions of this model, or those of the file, whose energies are shifted to this
    scale by element energies of their own.

    Args:
        model: to start from.
        start: file, labels and number of the frames.
        data: keys and units of labels in the file.
        batch_size: frames evaluated at once.

    Raises:
        So3kError: the file cannot be read, or it has elements that the model does not know.
    """
    if start.replay is None:
        return []
    reading: dict[str, Any] = {name: getattr(data, name) for name in READING}
    of_file = start.replay_labels == "file"
    frames = read_frames(start.replay, **reading)
    if start.n_replay is not None:
        frames = [frames[i] for i in make_split(len(frames), start.n_replay, None, data.split_seed).train]
    predictions = predict(model, frames, batch_size)
    return _aligned(frames, predictions) if of_file else _labelled(frames, predictions)


def _aligned(frames: Sequence[Frame], predictions: Sequence[Prediction]) -> list[Frame]:
    """The same frames with energies that differ from the predictions by no element energies."""
    excess = element_errors(frames, predictions)
    return [
        frame
        if frame.energy is None
        else frame._replace(energy=frame.energy - sum(excess[z] for z in frame.numbers.tolist()))
        for frame in frames
    ]


def _labelled(frames: Sequence[Frame], predictions: Sequence[Prediction]) -> list[Frame]:
    """Frames with the predictions of a model as their labels."""
    found = []
    for frame, its in zip(frames, predictions, strict=True):
        labels: dict[str, Any] = {"energy": its.energy, "forces": its.forces, "stress": its.stress}
        if (physics := its.physics) is not None:
            labels |= {"charges": physics.charges, "hirshfeld_ratios": physics.hirshfeld_ratios}
            labels["dipole"] = physics.dipole if frame.volume is None else None
        found.append(frame._replace(**labels))
    return found


def origin(model: So3krates, path: str) -> dict[str, Any]:
    """The metadata of a start that a fine-tuned model keeps: file, hash of weights, licence and citations."""
    facts = metadata(model)
    kept = {key: facts[key] for key in ("name", "imported", "licence", "citations") if key in facts}
    return {"file": Path(path).name, "weights_sha256": weights_hash(model)} | kept
