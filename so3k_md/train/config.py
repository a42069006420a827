"""Reads training files, which have four sections, and a fifth one to start from another model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from so3k_md.checkpoint import config_of, load
from so3k_md.config import from_mapping, nearest, shorten, to_mapping
from so3k_md.data.frames import CHARGE_LABELS, LABELS
from so3k_md.errors import So3kError
from so3k_md.model import ModelConfig
from so3k_md.structure.groups import MODES
from so3k_md.yaml_text import read_yaml

PATH_KEYS = ("train", "valid", "train_indices", "valid_indices", "isolated_atoms")
FILES = [*(("data", key) for key in PATH_KEYS), ("start", "model"), ("start", "replay")]
Sections = dict[str, dict[str, Any]]  # plain values by section and key

CHOICES = {  # of the section `start`
    "strategy": ("full", "lora", "first", "last", "head"),
    "element_energies": ("refit", "keep"),
    "replay_labels": ("model", "file"),
}
OPTIMIZERS = ("adamw", "muon")
KERNELS = ("auto", "compiled", "plain")
DECAYS = ("exponential", "cosine", "plateau", "none")


@dataclass(frozen=True)
class DataConfig:
    """The data files, the keys and units of their labels, and the split."""

    train: str = field(metadata={"doc": "file of training frames: extended XYZ or npz"})
    valid: str | None = field(
        default=None, metadata={"doc": "file of validation frames; none to split `train`"}
    )
    n_train: int | None = field(
        default=None, metadata={"doc": "training frames; none for all remaining frames"}
    )
    n_valid: int | None = field(default=None, metadata={"doc": "validation frames"})
    train_indices: str | None = field(default=None, metadata={"doc": "published split: indices for training"})
    valid_indices: str | None = field(
        default=None, metadata={"doc": "published split: indices for validation"}
    )
    split_seed: int = field(default=0, metadata={"doc": "seed of the split if no indices are given"})
    energy_key: str | None = field(default=None, metadata={"doc": "key of the energy"})
    forces_key: str | None = field(default=None, metadata={"doc": "key of the forces"})
    stress_key: str | None = field(default=None, metadata={"doc": "key of the stress or virial"})
    dipole_key: str | None = field(
        default=None, metadata={"doc": "key of the dipole; none for `dipole`, if the loss needs it"}
    )
    charges_key: str | None = field(
        default=None, metadata={"doc": "key of the charges of atoms; none for `charges`, if needed"}
    )
    hirshfeld_ratios_key: str | None = field(
        default=None, metadata={"doc": "key of Hirshfeld ratios; none for `hirshfeld_ratios`, if needed"}
    )
    energy_unit: str = field(default="eV", metadata={"doc": "unit of energies in the file"})
    length_unit: str = field(default="Angstrom", metadata={"doc": "unit of lengths in the file"})
    forces_unit: str | None = field(
        default=None,
        metadata={"doc": "unit of forces, such as Hartree/Bohr; none for energy_unit/length_unit"},
    )
    stress_unit: str | None = field(
        default=None,
        metadata={
            "doc": "unit of stress (eV/Angstrom^3, GPa, kbar); an energy (eV) if the file holds virials"
        },
    )
    stress_sign: str = field(
        default="ase", metadata={"doc": "ase (stress: tension positive; virial: −V stress) or opposite"}
    )
    dipole_unit: str = field(
        default="e*Angstrom", metadata={"doc": "unit of dipoles: e*Angstrom, Debye, e*Bohr, e*nm"}
    )
    spin_convention: str = field(
        default="auto", metadata={"doc": "what `spin` counts: S, unpaired (2S), multiplicity (2S+1), auto"}
    )
    accept_units: bool = field(default=False, metadata={"doc": "train although values suggest other units"})
    reference: str = field(
        default="auto",
        metadata={
            "doc": "element energies: auto (isolated atoms or least_squares), least_squares, mean, none"
        },
    )
    isolated_atoms: str | None = field(
        default=None, metadata={"doc": "file of isolated atoms, in addition to those in the data files"}
    )
    element_energies: dict[str, float] | None = field(
        default=None, metadata={"doc": "energies of isolated atoms by symbol, eV, such as {H: -13.6}"}
    )
    groups: str = field(
        default="auto",
        metadata={"doc": "groups of a non-local model: auto (array `group`, or a whole open frame) or all"},
    )

    def __post_init__(self) -> None:
        if self.groups not in MODES:
            raise So3kError(f"data.groups = {self.groups!r} is unknown: choose auto or all")
        if not 0 <= self.split_seed < 2**32:
            raise So3kError(f"data.split_seed = {self.split_seed} is impossible: give 0 to 4294967295")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the mean squared errors in eV, Å and e; zero excludes a label.

    A frame that lacks a label does not count in its part.
    """

    energy: float = field(default=0.01, metadata={"doc": "weight of the energy of a structure"})
    forces: float = field(default=0.99, metadata={"doc": "weight of the force components"})
    stress: float = field(default=0.0, metadata={"doc": "weight of the stress components"})
    dipole: float = field(default=0.0, metadata={"doc": "weight of the dipole components"})
    charges: float = field(default=0.0, metadata={"doc": "weight of the charges of atoms"})
    hirshfeld_ratios: float = field(default=0.0, metadata={"doc": "weight of the Hirshfeld ratios of atoms"})
    energy_per_atom: str = field(
        default="auto",
        metadata={"doc": "divide energies by the number of atoms: always, never, auto (if sizes differ)"},
    )
    huber: float = field(
        default=0.0,
        metadata={"doc": "errors above this value count linearly, in the unit of each label; 0 for none"},
    )

    def __post_init__(self) -> None:
        weights = tuple(getattr(self, label) for label in (*LABELS, *CHARGE_LABELS))
        if not all(0 <= weight < math.inf for weight in weights) or max(weights) == 0:
            raise So3kError(f"loss weights {weights} are impossible: none negative, at least one positive")
        if self.energy_per_atom not in ("auto", "always", "never"):
            raise So3kError(
                f"loss.energy_per_atom = {self.energy_per_atom!r} is unknown: choose auto, always or never"
            )
        if self.huber < 0:
            raise So3kError(f"loss.huber = {self.huber} is impossible: give 0 or a positive error")

    @property
    def labels(self) -> list[str]:
        """The labels with a weight."""
        return [label for label in (*LABELS, *CHARGE_LABELS) if getattr(self, label) > 0]


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the optimisation."""

    epochs: int = field(default=1000, metadata={"doc": "passes over the training frames"})
    batch_size: int = field(default=10, metadata={"doc": "structures in a step"})
    most_pairs: int | None = field(
        default=None,
        metadata={
            "doc": "pairs computed at once; larger batches are computed in parts, with the same result"
        },
    )
    learning_rate: float = field(default=3e-3, metadata={"doc": "learning rate after the warm-up"})
    final_learning_rate: float = field(default=1e-5, metadata={"doc": "learning rate at the end"})
    decay: str = field(default="cosine", metadata={"doc": "exponential, cosine, plateau or none"})
    plateau_patience: int = field(
        default=10,
        metadata={"doc": "decay plateau: halve the rate after so many validations without progress"},
    )
    patience: int = field(
        default=0, metadata={"doc": "stop after so many validations without progress; 0 for never"}
    )
    warmup_steps: int = field(
        default=500, metadata={"doc": "steps in which the learning rate rises linearly"}
    )
    optimizer: str = field(
        default="muon", metadata={"doc": "muon (orthogonalised momentum of maps between features) or adamw"}
    )
    weight_decay: float = field(default=0.0, metadata={"doc": "decoupled (AdamW), on matrices only"})
    amsgrad: bool = field(default=False, metadata={"doc": "the AMSGrad variant"})
    clip_norm: float = field(default=10.0, metadata={"doc": "largest global gradient norm"})
    ema: float = field(default=0.999, metadata={"doc": "decay of the averaged weights; 0 for none"})
    valid_every: int = field(default=1, metadata={"doc": "epochs between validations"})
    valid_batch_size: int = field(default=50, metadata={"doc": "structures evaluated at once"})
    seed: int = field(default=0, metadata={"doc": "seed of initial weights and of the order of frames"})
    embedding_scale: float = field(
        default=6.0, metadata={"doc": "factor of the initial embeddings of elements; 1 is the published form"}
    )
    device: str = field(default="cpu", metadata={"doc": "cpu or cuda"})
    dtype: str = field(default="float32", metadata={"doc": "float32 or float64"})
    kernels: str = field(
        default="auto",
        metadata={"doc": "form of the layers: auto (compiled where kernels serve), compiled or plain"},
    )
    tensorboard: bool = field(default=True, metadata={"doc": "also write a log for TensorBoard"})

    def __post_init__(self) -> None:
        positive = "epochs", "batch_size", "learning_rate", "final_learning_rate", "clip_norm", "valid_every"
        for name in (*positive, "valid_batch_size", "plateau_patience", "embedding_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise So3kError(f"train.{name} = {getattr(self, name)} is impossible: it must be positive")
        if self.seed >= 2**63:
            raise So3kError(f"train.seed = {self.seed} is impossible: give 0 to 2^63 - 1")
        for name in ("warmup_steps", "weight_decay", "seed", "patience"):
            if not 0 <= getattr(self, name) < math.inf:
                raise So3kError(
                    f"train.{name} = {getattr(self, name)} is impossible: it must not be negative"
                )
        if self.most_pairs is not None and self.most_pairs < 1:
            raise So3kError(f"train.most_pairs = {self.most_pairs} is impossible: give at least 1")
        if not 0 <= self.ema < 1:
            raise So3kError(f"train.ema = {self.ema} is impossible: choose from 0 to below 1")
        for name, known in (("decay", DECAYS), ("optimizer", OPTIMIZERS), ("kernels", KERNELS)):
            if getattr(self, name) not in known:
                raise So3kError(
                    f"train.{name} = {getattr(self, name)!r} is unknown: choose one of {', '.join(known)}"
                )


@dataclass(frozen=True)
class StartConfig:
    """The model that a training continues, and what it may change of it."""

    model: str | None = field(
        default=None, metadata={"doc": "checkpoint, exported file or bundled model; none for random weights"}
    )
    strategy: str = field(
        default="full",
        metadata={"doc": "weights to train: full, lora, first (layer), last (layer and heads), head"},
    )
    lora_rank: int = field(default=8, metadata={"doc": "strategy lora: rank of the changes of matrices"})
    element_energies: str = field(
        default="refit", metadata={"doc": "refit them to the energies of the new data, or keep"}
    )
    replay: str | None = field(
        default=None,
        metadata={"doc": "file of frames that are mixed in, against forgetting"},
    )
    replay_labels: str = field(
        default="model", metadata={"doc": "labels of replayed frames: of the start model, or of the file"}
    )
    n_replay: int | None = field(
        default=None,
        metadata={"doc": "replayed frames, drawn with data.split_seed; none for all of the file"},
    )

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise So3kError(
                    f"start.{name} = {getattr(self, name)!r} is unknown: choose one of {', '.join(known)}"
                )
        if self.lora_rank < 1:
            raise So3kError(f"start.lora_rank = {self.lora_rank} is impossible: give at least 1")
        if self.model is None and self.replay is not None:
            raise So3kError("start.replay needs a model to start from: set start.model")


class RunConfig(NamedTuple):
    """The sections of a training file."""

    model: ModelConfig
    data: DataConfig
    loss: LossConfig
    train: TrainConfig
    start: StartConfig = StartConfig()


def read_config(path: str | Path, overrides: list[str] | None = None) -> RunConfig:
    """A training file, changed by overrides `section.key=value`.

    `model` may name a `preset`, whose values the other keys change; with `start.model` it is that of the
    start. Paths in the file are relative to the file, paths in an override to the working folder.

    Raises:
        So3kError: names the file, the key and the nearest known one.
    """
    return from_sections(_read_sections(Path(path), overrides or []))


def from_sections(sections: Mapping[str, Mapping[str, Any]]) -> RunConfig:
    """The configuration of a training from its sections of plain values.

    Raises:
        So3kError: names the key and the nearest known one.
    """
    start = from_mapping(StartConfig, sections.get("start", {}), "start")
    return RunConfig(
        model=_model_config(dict(sections["model"]), start),
        data=from_mapping(DataConfig, sections["data"], "data"),
        loss=from_mapping(LossConfig, sections["loss"], "loss"),
        train=from_mapping(TrainConfig, sections["train"], "train"),
        start=start,
    )


def _model_config(values: dict[str, Any], start: StartConfig) -> ModelConfig:
    """The shape of the model: of the file, or of the model to start from."""
    if start.model is None:
        base = ModelConfig.preset(str(values.pop("preset"))) if "preset" in values else None
        return from_mapping(ModelConfig, values, "model", base)
    known = config_of(load(start.model))
    asked = from_mapping(ModelConfig, values, "model", known)
    for key, value in to_mapping(asked).items():
        if value != to_mapping(known)[key]:
            raise So3kError(
                f"model.{key} = {shorten(value)} differs from {start.model}, which has "
                f"{shorten(to_mapping(known)[key])}: leave the section model out with start.model"
            )
    return known


def to_sections(config: RunConfig) -> Sections:
    """The sections as plain values; `start` only where there is one."""
    used = [name for name in RunConfig._fields if name != "start" or config.start.model is not None]
    return {section: to_mapping(getattr(config, section)) for section in used}


def _read_sections(path: Path, overrides: list[str]) -> Sections:
    names = list(RunConfig._fields)
    try:
        document = read_yaml(path.read_text(encoding="utf-8"), str(path)) or {}
    except OSError as error:
        raise So3kError(f"cannot read {path}: {error.strerror}; name an existing YAML file") from error
    except UnicodeDecodeError as error:
        raise So3kError(f"{path} is not valid YAML: {error}; correct it there") from error
    if not isinstance(document, dict):
        raise So3kError(f"{path} holds no sections: it needs {', '.join(names)}, each with its keys")
    for section, values in document.items():
        if section not in names:
            raise So3kError(f"unknown section {shorten(section)} in {path}: {nearest(str(section), names)}")
        if not isinstance(values, dict | None):
            raise So3kError(f"section {section} of {path} is {shorten(values)}: it needs keys and values")
    merged = {section: dict(document.get(section) or {}) for section in names}
    for section, key in FILES:
        if isinstance(name := merged[section].get(key), str):
            beside = path.parent / name
            # a start may be the name of a bundled model
            merged[section][key] = name if key == "model" and not beside.exists() else str(beside)
    return override(merged, overrides)


def override(sections: Mapping[str, Mapping[str, Any]], arguments: Sequence[str]) -> Sections:
    """Sections in which arguments `section.key=value` replace values; all sections exist.

    Raises:
        So3kError: an argument that cannot be read, or an unknown section.
    """
    names = list(RunConfig._fields)
    merged = {section: dict(sections.get(section, {})) for section in names}
    for argument in arguments:
        section, key, value = _parse_override(argument, names)
        merged[section][key] = value
    return merged


def _parse_override(override: str, sections: list[str]) -> tuple[str, str, Any]:
    name, equals, text = override.partition("=")
    section, dot, key = name.partition(".")
    if not (equals and dot and key):
        raise So3kError(f"cannot read the argument {override!r}: write section.key=value")
    if section not in sections:
        raise So3kError(f"unknown section in {override!r}: {nearest(section, sections)}")
    return section, key, read_yaml(text, f"the value in {shorten(override)}")
