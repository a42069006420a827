"""The training loop: after each validation all is on disk, and a resumed run repeats it to the last bit."""

import hashlib
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from torch import Tensor
from tqdm import tqdm

from so3k_md.checkpoint import parse_device, parse_dtype, read_checkpoint, save_checkpoint
from so3k_md.config import defaults
from so3k_md.data import Dataset, Frame, batches, fit_statistics, make_split, read_frames
from so3k_md.errors import So3kError
from so3k_md.files import atomic, check_folder
from so3k_md.forces import evaluate
from so3k_md.model import So3krates, set_dtype
from so3k_md.train.config import DataConfig, LossConfig, RunConfig, to_sections
from so3k_md.train.log import Log, Row
from so3k_md.train.loss import errors, weighted_loss
from so3k_md.train.optimizer import learning_rate, make_optimizer, update_average

# What may change when a run goes on: where it runs, where its data lie, how long it is, how fast it learns.
PLACES = {("data", "train"), ("data", "valid"), ("data", "train_indices"), ("data", "valid_indices")}
RATES = {("train", "learning_rate"), ("train", "final_learning_rate"), ("train", "clip_norm")}
RESUMABLE = {("train", "epochs"), ("train", "device"), ("train", "tensorboard")} | RATES

# Settings of the data that `read_frames` takes.
READING = (
    "energy_key",
    "forces_key",
    "stress_key",
    "energy_unit",
    "length_unit",
    "forces_unit",
    "stress_unit",
    "stress_sign",
    "spin_convention",
)


class Frames(NamedTuple):
    """Training and validation frames."""

    train: list[Frame]
    valid: list[Frame]


class Validation(NamedTuple):
    """Errors over the validation frames; nan where a label is missing."""

    loss: float
    energy_mae: float  # eV
    forces_mae: float  # eV/Å
    stress_mae: float  # eV/Å³


def train(config: RunConfig, folder: Path, resume: bool = False, overwrite: bool = False) -> Path:
    """Train a model, or go on with a training that was stopped; returns the best checkpoint.

    Args:
        config: the four sections.
        folder: gets best.ckpt, last.ckpt, config.yaml, log.csv, learning_curve.png and tensorboard/.
        resume: continue from last.ckpt of the folder.
        overwrite: start anew in a folder that holds a training.

    Raises:
        So3kError: bad input, a folder in use, or a loss that is no longer finite.
    """
    device, dtype = parse_device(config.train.device), parse_dtype(config.train.dtype)
    if config.train.tensorboard:
        import tensorboard  # noqa: F401 - a missing package is known before anything is written
    state = _resume_state(folder, config) if resume else None
    if state is None:
        _check_folder(folder, overwrite)
    frames = load_frames(config.data, config.loss)
    model = build_model(config, frames, folder.resolve().name)
    train_set, valid_set = (Dataset(part, model.cutoff, model, config.data.groups) for part in frames)
    optimizer = make_optimizer(set_dtype(model, dtype).to(device), config.train)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    epoch, best, rows = 0, math.inf, []
    if state is not None:
        model.load_state_dict(state["weights"])
        training = state["training"]
        average = {name: value.to(device) for name, value in training["average"].items()}
        optimizer.load_state_dict(training["optimizer"])
        epoch, best, rows = training["epoch"], training["best"], training["rows"]
    else:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "last.ckpt").unlink(missing_ok=True)
        if overwrite:  # nothing of the former training shall stand beside the new one
            for name in ("best.ckpt", "log.csv", "learning_curve.png"):
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        with atomic(folder / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(to_sections(config), sort_keys=False, allow_unicode=True))
    log = Log(folder, rows, config.train.tensorboard)
    seconds_before = log.rows[-1].seconds if log.rows else 0.0
    steps_per_epoch = math.ceil(len(train_set) / config.train.batch_size)
    started = time.monotonic()
    bar = tqdm(total=config.train.epochs, initial=epoch, unit="epoch", desc="training", dynamic_ncols=True)
    while epoch < config.train.epochs:
        loss = _train_epoch(model, average, optimizer, train_set, config, epoch, device)
        epoch += 1
        bar.update()
        if epoch % config.train.valid_every and epoch != config.train.epochs:
            continue
        validation = _validate_average(model, average, valid_set, config, device)
        step = epoch * steps_per_epoch
        energy_mae, forces_mae, stress_mae = (1e3 * mae for mae in validation[1:])
        elapsed = seconds_before + time.monotonic() - started
        rate = optimizer.param_groups[0]["lr"]
        log.add(Row(epoch, step, rate, loss, validation.loss, energy_mae, forces_mae, stress_mae, elapsed))
        bar.set_postfix_str(f"loss {loss:.2e}, valid E {energy_mae:.1f} meV, F {forces_mae:.1f} meV/Å")
        if validation.loss < best:
            best = validation.loss
            save_checkpoint(folder / "best.ckpt", model, average, {})
        training = {
            "average": average,
            "optimizer": optimizer.state_dict(),
            "epoch": epoch,
            "best": best,
            "rows": [list(row) for row in log.rows],
            "config": to_sections(config),
        }
        save_checkpoint(folder / "last.ckpt", model, model.state_dict(), training)
    bar.close()
    log.draw()
    log.close()
    return folder / "best.ckpt"


def load_frames(data: DataConfig, loss: LossConfig) -> Frames:
    """Read and split the frames; each must have the labels that the loss weighs.

    Raises:
        So3kError: from reading or splitting, or no validation frames.
    """
    labels = [label for label in ("energy", "forces", "stress") if getattr(loss, label) > 0]
    reading: dict[str, Any] = {name: getattr(data, name) for name in READING} | {"required": labels}
    frames = read_frames(data.train, **reading)
    drawn = data.n_valid if data.valid is None else None
    split = make_split(
        len(frames), data.n_train, drawn, data.split_seed, data.train_indices, data.valid_indices
    )
    train = [frames[i] for i in split.train]
    valid = [frames[i] for i in split.valid] if data.valid is None else read_frames(data.valid, **reading)
    if not valid:
        raise So3kError("there are no validation frames: set data.n_valid, or name a file in data.valid")
    return Frames(train, valid)


def build_model(config: RunConfig, frames: Frames, name: str) -> So3krates:
    """A fresh model whose energy head knows the statistics of the training frames."""
    elements = sorted({int(z) for part in frames for frame in part for z in frame.numbers})
    if elements[-1] >= config.model.n_species:
        raise So3kError(
            f"element {elements[-1]} does not fit model.n_species = {config.model.n_species}: raise it"
        )
    if config.model.electrostatics or config.model.dispersion:
        raise So3kError(
            "model.electrostatics and model.dispersion are of imported models, which are not trained here: "
            "leave them out"
        )
    model = So3krates(config.model, elements, config.train.seed)
    statistics = fit_statistics(frames.train, config.data.reference if config.loss.energy > 0 else "none")
    for z, shift in statistics.shift.items():
        model.head.shift[z] = shift
    model.head.scale.fill_(statistics.scale)
    sources = {Path(file) for file in (config.data.train, config.data.valid) if file}
    model.metadata = json.dumps(
        {
            "name": name,
            "training": {
                "files": {
                    file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(sources)
                },
                "n_train": len(frames.train),
                "n_valid": len(frames.valid),
                "loss": to_sections(config)["loss"],
                "train": to_sections(config)["train"],
            },
        }
    )
    return model


def validate(
    model: So3krates, dataset: Dataset, loss: LossConfig, batch_size: int, device: torch.device
) -> Validation:
    """Loss and mean absolute errors over a data set."""
    collected = []
    for batch in batches(dataset, batch_size):
        graph, targets = batch.to(device)
        evaluation = evaluate(model, graph, len(targets.energy))
        collected.append([error.detach() for error in errors(evaluation, targets)])
    whole = [torch.cat(parts) for parts in zip(*collected, strict=True)]
    maes = [float(error.abs().mean()) if error.numel() else math.nan for error in whole]
    return Validation(float(weighted_loss(type(errors(evaluation, targets))(*whole), loss)), *maes)


def _train_epoch(
    model: So3krates,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    dataset: Dataset,
    config: RunConfig,
    epoch: int,
    device: torch.device,
) -> float:
    """One pass in an order that seed and epoch decide; returns the mean loss."""
    settings = config.train
    order = np.random.default_rng([settings.seed, epoch]).permutation(len(dataset))
    steps_per_epoch = math.ceil(len(dataset) / settings.batch_size)
    total = 0.0
    for k, batch in enumerate(batches(dataset, settings.batch_size, order)):
        step = epoch * steps_per_epoch + k
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings.epochs * steps_per_epoch, settings)
        graph, targets = batch.to(device)
        evaluation = evaluate(model, graph, len(targets.energy), differentiable=True)
        loss = weighted_loss(errors(evaluation, targets), config.loss)
        optimizer.zero_grad()
        loss.backward()
        value = float(loss.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm))
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise So3kError(
                f"the loss is {value} in epoch {epoch + 1}: lower train.learning_rate and --resume from the "
                "last checkpoint, or look for a broken frame"
            )
        optimizer.step()
        update_average(average, model, step, settings.ema)
        total += value
    return total / steps_per_epoch


def _validate_average(
    model: So3krates, average: dict[str, Tensor], dataset: Dataset, config: RunConfig, device: torch.device
) -> Validation:
    """Validation errors of the averaged weights; the model gets its own weights back."""
    own = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(average)
    result = validate(model, dataset, config.loss, config.train.valid_batch_size, device)
    model.load_state_dict(own)
    return result


def _check_folder(folder: Path, overwrite: bool) -> None:
    if (folder / "config.yaml").exists() and not overwrite:
        raise So3kError(
            f"{folder} holds a training already: --resume it, name another folder, or pass --overwrite"
        )
    check_folder(folder)


def _resume_state(folder: Path, config: RunConfig) -> dict[str, Any]:
    path = folder / "last.ckpt"
    if not path.exists():
        raise So3kError(
            f"there is nothing to resume in {folder}: it has no last.ckpt; start without --resume, and with "
            "--overwrite if that is refused"
        )
    state = read_checkpoint(path)
    stored, now = state["training"].get("config"), to_sections(config)
    for section in now:
        for key, value in now[section].items():
            before = stored[section].get(key, defaults(type(getattr(config, section))).get(key))
            moved = (section, key) in PLACES and None not in (before, value)
            if before != value and not moved and (section, key) not in RESUMABLE:
                raise So3kError(
                    f"{section}.{key} was {before!r} when {path} was written, now {value!r}: restore it, "
                    "or start anew with --overwrite"
                )
    return state
