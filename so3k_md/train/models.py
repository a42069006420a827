"""Builds the model that a training begins with: a new one, or a start from another model."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch

from so3k_md.checkpoint import parse_dtype
from so3k_md.data import Frame, fit_statistics
from so3k_md.data.references import describe_references
from so3k_md.errors import So3kError
from so3k_md.kernels.training import training_parts
from so3k_md.model import So3krates
from so3k_md.model.parts import PLAIN, Parts
from so3k_md.needs import with_needs
from so3k_md.train.config import RunConfig, to_sections
from so3k_md.train.start import origin, refit_elements, start_model

log = logging.getLogger(__name__)


class Frames(NamedTuple):
    """Training and validation frames, and the energies of isolated atoms that were found or given."""

    train: list[Frame]
    valid: list[Frame]
    atoms: dict[int, float]  # atomic number -> eV


def fresh_model(config: RunConfig, frames: Frames, elements: list[int], name: str) -> So3krates:
    """A new model, whose energy head starts from the statistics of the training frames.

    Args:
        config: of the training.
        frames: of the training.
        elements: atomic numbers of the training frames.
        name: of the model.

    Raises:
        So3kError: an element that does not fit `model.n_species`.
    """
    if elements[-1] >= config.model.n_species:
        raise So3kError(
            f"element {elements[-1]} does not fit model.n_species = {config.model.n_species}: raise it"
        )
    if config.model.electrostatics != config.model.dispersion:
        raise So3kError(
            "model.electrostatics and model.dispersion are computed together: set both or neither to true"
        )
    model = So3krates(config.model, elements, config.train.seed, parts_of(config))
    with torch.no_grad():
        model.representation.embedding.weight.mul_(config.train.embedding_scale)
    reference = config.data.reference if config.loss.energy > 0 else "none"
    statistics = fit_statistics(frames.train, reference, frames.atoms)
    head = model.energies.head
    for z, shift in statistics.shift.items():
        head.shift[z] = shift
    head.scale.fill_(statistics.scale)
    if statistics.rest:  # the bond energy is learned; it starts at its mean
        bias = head.mlp.out.bias
        assert bias is not None
        with torch.no_grad():
            bias.fill_(statistics.rest / statistics.scale)
    if (physics := model.energies.physics) is not None:  # begins with atoms that are neutral and free
        with torch.no_grad():
            physics.charge_head.mlp.out.weight.zero_()
            physics.ratio_head.mlp.out.weight.zero_()
    return with_needs(model, metadata=json.dumps(_facts(config, frames, name, statistics.source)))


def parts_of(config: RunConfig) -> Parts:
    """The parts with which a model is trained."""
    if config.train.kernels == "plain":
        return PLAIN
    parts, reason = training_parts(config.model, config.train.device, parse_dtype(config.train.dtype))
    if config.train.kernels == "compiled" and parts is PLAIN:
        raise So3kError(f"train.kernels = 'compiled', but {reason}: set train.kernels to auto or plain")
    log.info("training with %s parts: %s", parts.form, reason)
    return parts


def continued_model(config: RunConfig, frames: Frames, elements: list[int], name: str) -> So3krates:
    """The model of `start.model`, with element energies that fit the training frames.

    Args:
        config, frames, elements, name: as of `fresh_model`.
    """
    start = config.start
    assert start.model is not None
    model = start_model(start.model, elements, parts_of(config))
    facts = origin(model, start.model) | {"strategy": start.strategy}
    if start.element_energies == "refit" and config.loss.energy > 0:
        refit_elements(model, frames.train, config.train.valid_batch_size)
        with_needs(model, energy_shift=0.0)
    return with_needs(model, metadata=json.dumps(_facts(config, frames, name, "fit") | {"start": facts}))


def _facts(config: RunConfig, frames: Frames, name: str, source: str) -> dict[str, Any]:
    """The metadata of a trained model about its data and settings."""
    files = (config.data.train, config.data.valid, config.data.isolated_atoms, config.start.replay)
    sources = {Path(file) for file in files if file}
    return {
        "name": name,
        "references": describe_references(frames.train, source),
        "training": {
            "files": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(sources)},
            "n_train": len(frames.train),
            "n_valid": len(frames.valid),
            "loss": to_sections(config)["loss"],
            "train": to_sections(config)["train"],
        },
    }
