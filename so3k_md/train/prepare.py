"""Prepares a training: reads the frames, builds the model, and checks that both can be trained."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ase.data import chemical_symbols

from so3k_md.data import Dataset, Frame, make_split, read_frames
from so3k_md.data.batches import LARGEST_BATCH, in_chunks, pairs_of
from so3k_md.data.doubts import unit_doubts
from so3k_md.data.frames import CHARGE_LABELS, warn_partial_labels
from so3k_md.data.keys import warn_unused_charge_state
from so3k_md.data.read import READING
from so3k_md.data.references import by_symbol, isolated_energies
from so3k_md.data.units import units_of
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.memory import available_memory, describe_bytes
from so3k_md.model import So3krates
from so3k_md.train.config import DataConfig, LossConfig, RunConfig
from so3k_md.train.models import Frames, continued_model, fresh_model

# Numbers stored for each pair, layer and feature. In a training step: 30 to 35, measured on three models. In
# a validation, which differentiates once: 18 to 22, measured on frames of 192 and of 864 atoms.
NUMBERS_PER_PAIR = 33
NUMBERS_PER_VALIDATED_PAIR = 22


def load_frames(data: DataConfig, loss: LossConfig) -> Frames:
    """Read and split the frames; at least one must have each label that has a weight in the loss.

    Raises:
        So3kError: an error of reading or splitting, no validation frames, or values that suggest other units.
    """
    labels = loss.labels
    data = with_keys(data, loss)
    reading: dict[str, Any] = {name: getattr(data, name) for name in READING}
    frames = read_frames(data.train, expected=labels, **reading)
    n_valid = data.n_valid if data.valid is None else None
    split = make_split(
        len(frames), data.n_train, n_valid, data.split_seed, data.train_indices, data.valid_indices
    )
    train = [frames[i] for i in split.train]
    valid_frames = [] if data.valid is None else read_frames(data.valid, expected=labels, **reading)
    valid = [frames[i] for i in split.valid] if data.valid is None else valid_frames
    if not valid:
        raise So3kError("there are no validation frames: set data.n_valid, or name a file in data.valid")
    warn_partial_labels([*train, *valid], labels)
    check_units(train, data)
    check_validation_elements(train, valid)
    isolated = [] if data.isolated_atoms is None else read_frames(data.isolated_atoms, **reading)
    if invalid := [frame for frame in isolated if len(frame.numbers) != 1 or frame.energy is None]:
        raise So3kError(
            f"{invalid[0].where}: is not a single atom with an energy: correct data.isolated_atoms"
        )
    atoms = isolated_energies([*frames, *valid_frames, *isolated]) | by_symbol(data.element_energies or {})
    return Frames(train, valid, atoms)


def with_keys(data: DataConfig, loss: LossConfig) -> DataConfig:
    """The same settings with the usual keys of labels that are read only if the loss needs them."""
    keys: dict[str, Any] = {f"{label}_key": label for label in CHARGE_LABELS if label in loss.labels}
    return replace(data, **{key: getattr(data, key) or label for key, label in keys.items()})


def check_units(frames: Sequence[Frame], data: DataConfig) -> None:
    """Refuse values that suggest other units than stated.

    Raises:
        So3kError: such values, unless `accept_units` is set.
    """
    units = units_of(data.energy_unit, data.length_unit, data.forces_unit, data.stress_unit, data.stress_sign)
    doubts = unit_doubts(frames, units)
    if not doubts:
        return
    message = f"{data.train}: {'; '.join(doubts)}"
    if not data.accept_units:
        raise So3kError(
            f"{message}: correct the units and keys in data, or set data.accept_units=true if they are right"
        )
    warnings.warn(f"{message}: accepted because of data.accept_units", So3kWarning, stacklevel=2)


def check_validation_elements(train: Sequence[Frame], valid: Sequence[Frame]) -> None:
    """Refuse validation frames with an element that no training frame has.

    Raises:
        So3kError: names the first such frame.
    """
    known = {int(z) for frame in train for z in frame.numbers}
    for frame in valid:
        if unknown := {int(z) for z in frame.numbers} - known:
            raise So3kError(
                f"{frame.where}: this validation frame contains {chemical_symbols[min(unknown)]}, which no "
                "training frame contains: "
                "add training frames with it, or choose another split (data.split_seed, data.n_train, "
                "data.train_indices)"
            )


def build_model(config: RunConfig, frames: Frames, name: str) -> So3krates:
    """The model to train: a new one, whose energy head starts from the statistics of the frames, or a start.

    Raises:
        So3kError: elements, labels or energies that the model cannot have.
    """
    elements = sorted({int(z) for frame in frames.train for z in frame.numbers})
    make = fresh_model if config.start.model is None else continued_model
    model = make(config, frames, elements, name)
    needless = [label for label in CHARGE_LABELS if label in config.loss.labels]
    if needless and not model.needs.has_long_range:
        raise So3kError(
            f"loss.{needless[0]} needs a model with charges: set model.preset=so3lr, or start from one"
        )
    warn_unused_charge_state([*frames.train, *frames.valid], model.needs.has_charge_state)
    return model


def check_memory(train_set: Dataset, valid_set: Dataset, config: RunConfig) -> None:
    """Refuse frames without pairs, and batches that need more memory than is free.

    Raises:
        So3kError: there are no pairs, or more than fit the memory.
    """
    if not any(len(graph.idx_i) for graph in train_set.graphs) and any(
        len(frame.numbers) > 1 for frame in train_set.frames
    ):
        raise So3kError(
            f"no two atoms of any training frame are within model.cutoff = {config.model.cutoff:g} Å: "
            "raise it, or correct data.length_unit"
        )
    if config.train.device != "cpu":
        return
    trained = sorted(map(pairs_of, train_set.graphs), reverse=True)[: config.train.batch_size]
    validated = max(
        in_chunks(
            map(pairs_of, valid_set.graphs), lambda pairs: pairs, config.train.valid_batch_size, LARGEST_BATCH
        ),
        key=sum,
    )
    _check_batch("training", trained, NUMBERS_PER_PAIR, config)
    _check_batch("validation", validated, NUMBERS_PER_VALIDATED_PAIR, config)


def _check_batch(kind: str, pairs: Sequence[int], numbers_per_pair: int, config: RunConfig) -> None:
    """Refuse a batch that needs more memory than is free, or warn of it.

    Args:
        kind: training or validation.
        pairs: of each frame.
        numbers_per_pair: numbers stored for each pair, layer and feature.
        config: of model and training.
    """
    model = config.model
    width = model.features + model.radial_hidden
    size = 8 if config.train.dtype == "float64" else 4
    needed = sum(pairs) * numbers_per_pair * width * model.layers * size
    free = available_memory()
    if needed < 0.7 * free:
        return
    message = (
        f"a {kind} batch of {len(pairs)} frames with {sum(pairs):,} pairs takes "
        f"about {describe_bytes(needed)} of memory, and {describe_bytes(free)} are free"
    )
    key = "batch_size" if kind == "training" else "valid_batch_size"
    remedy = f"lower train.{key}, model.features, model.layers or model.cutoff, or use smaller frames"
    if needed > 1.5 * free:
        raise So3kError(f"{message}: {remedy}")
    warnings.warn(f"{message}: if memory runs out, {remedy}", So3kWarning, stacklevel=3)
