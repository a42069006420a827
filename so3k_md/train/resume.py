"""Checks whether a training may resume: its settings and frames must be the original ones."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from so3k_md.checkpoint import read_checkpoint
from so3k_md.config import defaults
from so3k_md.data import Frame
from so3k_md.errors import So3kError
from so3k_md.train.config import FILES, RunConfig, read_config, to_sections
from so3k_md.train.prepare import Frames

# Settings that may differ when a run resumes: device, paths of the data, number of epochs, learning rates.
PATHS = set(FILES)
RATES = {("train", "learning_rate"), ("train", "final_learning_rate"), ("train", "clip_norm")}
WITHOUT_EFFECT = {("train", "valid_batch_size"), ("data", "accept_units")}  # without effect on the result
RESUMABLE = {
    ("train", "epochs"),
    ("train", "device"),
    ("train", "tensorboard"),
    ("train", "patience"),
    ("train", "most_pairs"),
}
RESUMABLE |= RATES | WITHOUT_EFFECT


# What trainings did before a setting existed, where its default is another now.
FORMER: dict[str, dict[str, Any]] = {
    "train": {"optimizer": "adamw", "embedding_scale": 1.0, "kernels": "plain"},
    "loss": {"energy_per_atom": "never"},
}


def fingerprint(frames: Frames) -> dict[str, Tensor]:
    """A hash of the content of each training and validation frame, in order."""
    return {
        name: torch.tensor([_digest(frame) for frame in part], dtype=torch.int64)
        for name, part in (("train", frames.train), ("valid", frames.valid))
    }


def read_state(folder: Path, config: RunConfig) -> dict[str, Any] | None:
    """The last checkpoint of a training with the same settings; None if it ended before the first one.

    Raises:
        So3kError: there is no training, or a setting differs.
    """
    path, config_file = folder / "last.ckpt", folder / "config.yaml"
    if not path.exists() and not config_file.exists():
        raise So3kError(
            f"there is nothing to resume in {folder}, it has no last.ckpt: start without --resume"
        )
    if not path.exists():
        _refuse_changes(to_sections(read_config(config_file)), config, config_file)
        return None
    state = read_checkpoint(path)
    if "config" not in state["training"]:
        raise So3kError(
            f"{path} holds a model but no state of a training: start without --resume in another folder"
        )
    _refuse_changes(state["training"]["config"], as_begun(config, state), path)
    return state


def as_begun(config: RunConfig, state: dict[str, Any] | None) -> RunConfig:
    """The same settings, with those of a training that began before a setting existed, if none is asked for.

    Args:
        config: what is asked for.
        state: of the training, or None for a new one.
    """
    stored = {} if state is None else state["training"]["config"]
    for section, former in FORMER.items():
        if section in stored:
            asked = getattr(config, section)
            usual = defaults(type(asked))
            unsaid = {
                key: value
                for key, value in former.items()
                if key not in stored[section] and getattr(asked, key) == usual[key]
            }
            config = config._replace(**{section: replace(asked, **unsaid)})
    return config


def _refuse_changes(stored: dict[str, dict[str, Any]], config: RunConfig, path: Path) -> None:
    """Refuse settings that differ from those stored in a file of the training."""
    now = to_sections(config)
    for section in now:
        for key, value in now[section].items():
            usual = defaults(type(getattr(config, section))).get(key)
            unsaid = FORMER.get(section, {}).get(key, usual)
            before = stored.get(section, {}).get(key, unsaid)
            path_changed = (section, key) in PATHS and None not in (before, value)
            if before != value and not path_changed and (section, key) not in RESUMABLE:
                raise So3kError(
                    f"{section}.{key} was {before!r} when {path} was written, now {value!r}: restore it, "
                    "or start a new training with --overwrite"
                )


def check_frames(before: dict[str, Tensor] | None, frames: Frames, where: Path) -> None:
    """Refuse to resume with other frames than those of the start.

    Args:
        before: `fingerprint` of the start; None for checkpoints of older versions, which are not checked.
        frames: current frames.
        where: the folder of the training.

    Raises:
        So3kError: names the difference.
    """
    if before is None:
        return
    now = fingerprint(frames)
    if all(torch.equal(before[part], now[part]) for part in now):
        return
    old = {part: set(before[part].tolist()) for part in before}
    new = {part: set(now[part].tolist()) for part in now}
    moved = len(old["valid"] & new["train"])
    counts = [
        f"{len(now['train'])} training frames instead of {len(before['train'])}, "
        f"{len(new['train'] - old['train'])} of them new",
        f"{moved} former validation frames among the training frames" if moved else "",
        "the same frames in another order" if old == new else "",
    ]
    raise So3kError(
        f"the frames are not those with which the training in {where} started: "
        f"{'; '.join(text for text in counts if text)}. Restore them, or start a new training in another "
        "folder or with --overwrite (a file in data.valid keeps the validation frames when others are added)"
    )


def _digest(frame: Frame) -> int:
    """63 bits of a hash of all values of a frame that training uses."""
    parts: Sequence[Any] = (
        frame.numbers,
        frame.positions,
        frame.cell,
        frame.pbc,
        frame.energy,
        frame.forces,
        frame.stress,
        frame.group,
    )
    content = hashlib.sha256()
    # labels of charges count only where there are some, so that former fingerprints stay valid
    of_charges = [part for part in (frame.dipole, frame.charges, frame.hirshfeld_ratios) if part is not None]
    for part in (*parts, *of_charges):
        content.update(b"-" if part is None else np.ascontiguousarray(part).tobytes())
        content.update(b"|")
    content.update(
        repr(
            [frame.charge_state.charge, frame.charge_state.spin, frame.charge_state.fragment_charges]
        ).encode()
    )
    content.update(
        b"-" if frame.charge_state.fragment is None else np.asarray(frame.charge_state.fragment).tobytes()
    )
    return int.from_bytes(content.digest()[:8], "little") >> 1
