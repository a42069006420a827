"""Reads training files, which have four sections."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from so3k_md.config import from_mapping, nearest, shorten, to_mapping
from so3k_md.errors import So3kError
from so3k_md.model import ModelConfig
from so3k_md.structure.groups import MODES
from so3k_md.yaml_text import read_yaml

PATH_KEYS = ("train", "valid", "train_indices", "valid_indices", "isolated_atoms")


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
    """Weights of the mean squared errors in eV, eV/Å and eV/Å³; zero excludes a label."""

    energy: float = field(default=0.01, metadata={"doc": "weight of the energy of a structure"})
    forces: float = field(default=0.99, metadata={"doc": "weight of the force components"})
    stress: float = field(default=0.0, metadata={"doc": "weight of the stress components"})

    def __post_init__(self) -> None:
        weights = self.energy, self.forces, self.stress
        if not all(0 <= weight < math.inf for weight in weights) or max(weights) == 0:
            raise So3kError(f"loss weights {weights} are impossible: none negative, at least one positive")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the optimisation."""

    epochs: int = field(default=1000, metadata={"doc": "passes over the training frames"})
    batch_size: int = field(default=5, metadata={"doc": "structures in a step"})
    learning_rate: float = field(default=1e-3, metadata={"doc": "learning rate after the warm-up"})
    final_learning_rate: float = field(default=1e-5, metadata={"doc": "learning rate at the end"})
    decay: str = field(default="exponential", metadata={"doc": "exponential, cosine or none"})
    warmup_steps: int = field(
        default=500, metadata={"doc": "steps in which the learning rate rises linearly"}
    )
    weight_decay: float = field(default=0.0, metadata={"doc": "decoupled (AdamW), on matrices only"})
    amsgrad: bool = field(default=False, metadata={"doc": "the AMSGrad variant"})
    clip_norm: float = field(default=10.0, metadata={"doc": "largest global gradient norm"})
    ema: float = field(default=0.999, metadata={"doc": "decay of the averaged weights; 0 for none"})
    valid_every: int = field(default=1, metadata={"doc": "epochs between validations"})
    valid_batch_size: int = field(default=50, metadata={"doc": "structures evaluated at once"})
    seed: int = field(default=0, metadata={"doc": "seed of initial weights and of the order of frames"})
    device: str = field(default="cpu", metadata={"doc": "cpu or cuda"})
    dtype: str = field(default="float32", metadata={"doc": "float32 or float64"})
    tensorboard: bool = field(default=True, metadata={"doc": "also write a log for TensorBoard"})

    def __post_init__(self) -> None:
        positive = "epochs", "batch_size", "learning_rate", "final_learning_rate", "clip_norm", "valid_every"
        for name in (*positive, "valid_batch_size"):
            if not 0 < getattr(self, name) < math.inf:
                raise So3kError(f"train.{name} = {getattr(self, name)} is impossible: it must be positive")
        if self.seed >= 2**63:
            raise So3kError(f"train.seed = {self.seed} is impossible: give 0 to 2^63 - 1")
        for name in ("warmup_steps", "weight_decay", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise So3kError(
                    f"train.{name} = {getattr(self, name)} is impossible: it must not be negative"
                )
        if not 0 <= self.ema < 1:
            raise So3kError(f"train.ema = {self.ema} is impossible: choose from 0 to below 1")
        if self.decay not in ("exponential", "cosine", "none"):
            raise So3kError(f"train.decay = {self.decay!r} is unknown: choose exponential, cosine or none")


class RunConfig(NamedTuple):
    """The four sections of a training file."""

    model: ModelConfig
    data: DataConfig
    loss: LossConfig
    train: TrainConfig


def read_config(path: str | Path, overrides: list[str] | None = None) -> RunConfig:
    """A training file, changed by overrides `section.key=value`.

    `model` may name a `preset`, whose values the other keys change. Paths in the file are relative to the
    file; paths in an override are relative to the working folder.

    Raises:
        So3kError: names the file, the key and the nearest known one.
    """
    sections = _read_sections(Path(path), overrides or [])
    model = dict(sections["model"])
    base = ModelConfig.preset(str(model.pop("preset"))) if "preset" in model else None
    return RunConfig(
        model=from_mapping(ModelConfig, model, "model", base),
        data=from_mapping(DataConfig, sections["data"], "data"),
        loss=from_mapping(LossConfig, sections["loss"], "loss"),
        train=from_mapping(TrainConfig, sections["train"], "train"),
    )


def to_sections(config: RunConfig) -> dict[str, dict[str, Any]]:
    """The four sections as plain values."""
    return {section: to_mapping(getattr(config, section)) for section in RunConfig._fields}


def _read_sections(path: Path, overrides: list[str]) -> dict[str, dict[str, Any]]:
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
    for key in PATH_KEYS:
        if isinstance(merged["data"].get(key), str):
            merged["data"][key] = str(path.parent / merged["data"][key])
    for override in overrides:
        section, key, value = _parse_override(override, names)
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
