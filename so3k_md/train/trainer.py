"""The training loop. It saves its state around each validation; a resumed run gives the same bits."""

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tqdm import tqdm

from so3k_md.checkpoint import parse_device, parse_dtype, save_checkpoint
from so3k_md.data import Dataset
from so3k_md.data.batches import chunks
from so3k_md.errors import So3kError, Stopped
from so3k_md.files import atomic, check_folder, locked, remove_leftovers
from so3k_md.model import So3krates, set_dtype
from so3k_md.model.weights import file_name, load_weights
from so3k_md.train.config import RunConfig, to_sections
from so3k_md.train.log import Log, Row
from so3k_md.train.loss import divides_energies
from so3k_md.train.lowrank import LowRank
from so3k_md.train.optimizer import Optimizer, learning_rate, optimizer_of, update_average
from so3k_md.train.parallel import world
from so3k_md.train.prepare import build_model, check_memory, load_frames, with_keys
from so3k_md.train.resume import as_begun, check_frames, fingerprint, read_state
from so3k_md.train.run import Progress, Run
from so3k_md.train.start import choose_weights, replayed
from so3k_md.train.step import suspect, take_step
from so3k_md.train.stopping import Request, stop_on_signal
from so3k_md.train.validation import Validation, is_stalled, validate_average


def train(config: RunConfig, folder: Path, resume: bool = False, overwrite: bool = False) -> Path:
    """Train a model, or resume a stopped training; returns the path of the best checkpoint.

    Args:
        config: the four sections.
        folder: for best.ckpt, last.ckpt, config.yaml, log.csv, learning_curve.png and tensorboard/.
        resume: continue from last.ckpt of the folder.
        overwrite: start a new training in a folder that contains one.

    Raises:
        So3kError: bad input, a folder in use, no memory, or a loss that is no longer finite.
        Stopped: a signal came; the state of the training is in last.ckpt.
    """
    device, dtype = parse_device(config.train.device), parse_dtype(config.train.dtype)
    if config.train.tensorboard:
        import tensorboard  # noqa: F401 - a missing package is found before any file is written
    with ExitStack() as stack:
        processes = stack.enter_context(world(device))
        if processes.is_first and not resume:
            _check_folder(folder, overwrite)
        existed = folder.is_dir()
        if existed and processes.is_first:
            stack.enter_context(locked(folder))
        state = read_state(folder, config) if resume else None
        config = as_begun(config, state)
        frames = load_frames(config.data, config.loss)
        if state is not None:
            check_frames(state["training"].get("frames"), frames, folder)
        model = build_model(config, frames, folder.resolve().name)
        mixed_in = replayed(
            model, config.start, with_keys(config.data, config.loss), config.train.valid_batch_size
        )
        train_set, valid_set = (
            Dataset(part, model.needs.cutoff, model, config.data.groups)
            for part in ([*frames.train, *mixed_in], frames.valid)
        )
        check_memory(train_set, valid_set, config)
        set_dtype(model, dtype).to(device)
        choose_weights(model, config.start.strategy)
        average = {name: value.clone() for name, value in model.state_dict().items()}
        run = Run(
            config, folder, device, model, optimizer_for(model, config), average, train_set, valid_set,
            fingerprint(frames), divides_energies(config.loss, train_set.frames), processes,
        )  # fmt: skip
        processes.wait()  # until all have read the state and the frames
        if processes.is_first and not existed:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder))
            _check_folder(folder, overwrite)  # again: another process may have started in between
        progress, rows = Progress(), list[list[float]]()
        if state is not None:
            progress, rows = _restore(run, state)
        if processes.is_first:
            remove_leftovers(folder)
            if state is None:
                _begin(run, overwrite or resume)
        processes.same([*model.state_dict().values()])
        log = stack.enter_context(Log(folder if processes.is_first else None, rows, config.train.tensorboard))
        _loop(run, progress, log, stack.enter_context(stop_on_signal()))
    return folder / "best.ckpt"


def optimizer_for(model: So3krates, config: RunConfig) -> Optimizer:
    """The optimiser of a strategy."""
    if config.start.model is None or config.start.strategy != "lora":
        return optimizer_of(model, config.train)
    generator = torch.Generator().manual_seed(config.train.seed)
    return LowRank(dict(model.named_parameters()), config.start.lora_rank, config.train, generator)


def _begin(run: Run, clear: bool) -> None:
    """Write the configuration to the folder; with `clear` remove the files of a former training first."""
    if clear:
        for name in ("last.ckpt", "best.ckpt", "log.csv", "learning_curve.png"):
            (run.folder / name).unlink(missing_ok=True)
        shutil.rmtree(run.folder / "tensorboard", ignore_errors=True)
    with atomic(run.folder / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(to_sections(run.config), sort_keys=False, allow_unicode=True))


def _restore(run: Run, state: dict[str, Any]) -> tuple[Progress, list[list[float]]]:
    """Restore the state stored by `_save`; returns the progress and the rows of the log."""
    training = state["training"]
    # the optimizer identifies parameters by index; the order changed for models with total charge and spin
    order = training.get(
        "parameters", None if run.model.representation.charge_and_spin else parameter_names(run.model)
    )
    if order != parameter_names(run.model):
        raise So3kError(
            f"{run.folder / 'last.ckpt'} was written by a version of so3k-md with another order of "
            "parameters: resume with that version, or start a new training"
        )
    load_weights(run.model, state["weights"])
    own = {file_name(name): name for name in run.average}
    for name, value in training["average"].items():
        run.average[own[file_name(name)]] = value.to(run.device)
    run.optimizer.load_state_dict(training["optimizer"])
    known = {name: training[name] for name in Progress._fields if name in training}
    return Progress(**known), training["rows"]


def parameter_names(model: So3krates) -> list[str]:
    """Names of the parameters in files, in the order of the optimizer."""
    return [file_name(name) for name, _ in model.named_parameters()]


def _save(run: Run, progress: Progress, log: Log) -> None:
    """Save everything that a resumed run needs."""
    if not run.world.is_first:
        return
    training = {
        "average": {file_name(name): value for name, value in run.average.items()},
        "optimizer": run.optimizer.state_dict(),
        "rows": [list(row) for row in log.rows],
        "config": to_sections(run.config),
        "frames": run.frames,
        "parameters": parameter_names(run.model),
    }
    save_checkpoint(
        run.folder / "last.ckpt", run.model, run.model.state_dict(), training | progress._asdict()
    )


def _loop(run: Run, progress: Progress, log: Log, request: Request) -> None:
    """Run epochs and validations until the end, or until a signal comes."""
    epochs = run.config.train.epochs
    seconds_before = log.rows[-1].seconds if log.rows else 0.0
    started, stalled = time.monotonic(), False
    hidden = not run.world.is_first
    bar = tqdm(
        total=epochs,
        initial=progress.epoch,
        unit="epoch",
        desc="training",
        dynamic_ncols=True,
        disable=hidden,
    )
    with bar, _memory_errors(run.folder):
        while True:
            validated = bool(log.rows) and log.rows[-1].epoch == progress.epoch
            if run.is_due(progress.epoch) and progress.step == 0 and not validated:
                validation = validate_average(run, request)
                if validation is None:
                    break
                elapsed = seconds_before + time.monotonic() - started
                row = _row(run, progress, validation, elapsed)
                log.add(row)
                bar.set_postfix_str(
                    f"loss {progress.loss:.2e}, valid E {row.valid_energy_mae_mev:.1f} meV, "
                    f"F {row.valid_forces_mae_mev_per_angstrom:.1f} meV/Å"
                )
                if validation.loss < progress.best:
                    progress = progress._replace(best=validation.loss)
                    if run.world.is_first:
                        save_checkpoint(run.folder / "best.ckpt", run.model, run.average, {})
                _save(run, progress, log)
            stalled = is_stalled([row.valid_loss for row in log.rows], run.config.train.patience)
            if progress.epoch >= epochs or request.made or stalled:
                break
            progress = _train_epoch(run, progress, request, [row.valid_loss for row in log.rows])
            if progress.step or run.is_due(progress.epoch) or request.made:
                _save(run, progress, log)  # because a validation may run out of memory
            bar.update(0 if progress.step else 1)
    if (progress.epoch < epochs and not stalled) or not log.rows or log.rows[-1].epoch < progress.epoch:
        where = f"in epoch {progress.epoch + 1}" if progress.step else f"after epoch {progress.epoch}"
        raise Stopped(
            f"stopped by {request.name} {where}; continue from {run.folder / 'last.ckpt'} with --resume",
            request.code,
        )
    log.draw()


def _row(run: Run, progress: Progress, validation: Validation, seconds: float) -> Row:
    """The row of the log for a validation."""
    return Row(
        epoch=progress.epoch,
        step=progress.epoch * run.steps_per_epoch,
        learning_rate=run.optimizer.param_groups[0]["lr"],
        train_loss=progress.loss,
        valid_loss=validation.loss,
        valid_energy_mae_mev=1e3 * validation.energy_mae,
        valid_forces_mae_mev_per_angstrom=1e3 * validation.forces_mae,
        valid_stress_mae_mev_per_angstrom3=1e3 * validation.stress_mae,
        seconds=seconds,
        valid_dipole_mae_me_angstrom=1e3 * validation.dipole_mae,
        valid_charges_mae_me=1e3 * validation.charges_mae,
        valid_hirshfeld_ratios_mae_1e3=1e3 * validation.hirshfeld_ratios_mae,
    )


def _train_epoch(run: Run, progress: Progress, request: Request, losses: Sequence[float]) -> Progress:
    """Train to the end of an epoch, or to a signal; seed and epoch determine the order of the frames.

    `losses` are those of the validations so far.
    """
    settings, n_steps = run.config.train, run.steps_per_epoch
    epoch, total = progress.epoch, progress.total
    order = np.random.default_rng([settings.seed, epoch]).permutation(len(run.train_set))
    rest = order[progress.step * settings.batch_size :]
    for k, chunk in enumerate(chunks(run.train_set, settings.batch_size, rest), start=progress.step):
        step = epoch * n_steps + k
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate(step, settings.epochs * n_steps, settings, losses)
        value, stop = take_step(run, chunk, request)
        if not math.isfinite(value):
            raise So3kError(
                f"the loss is {value} in epoch {epoch + 1}, step {k + 1} of {n_steps}; "
                f"{suspect(run, chunk)}: lower train.learning_rate and continue from the last checkpoint "
                "with --resume, or correct or remove the frame"
            )
        update_average(run.average, run.model, step, settings.ema)
        total += value
        if stop and k + 1 < n_steps:
            return progress._replace(step=k + 1, total=total)
    return progress._replace(epoch=epoch + 1, step=0, total=0.0, loss=total / n_steps)


@contextmanager
def _memory_errors(folder: Path) -> Iterator[None]:
    """Turn a lack of memory into a one-line error that names the checkpoint to resume from."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        raise So3kError(
            f"memory ran out ({' '.join(str(error).split())[:100]}): lower train.batch_size or, if it was in "
            f"a validation, train.valid_batch_size, and continue from {folder / 'last.ckpt'} with --resume"
        ) from error


def _check_folder(folder: Path, overwrite: bool) -> None:
    has_training = any((folder / name).exists() for name in ("config.yaml", "last.ckpt", "best.ckpt"))
    if has_training and not overwrite:
        raise So3kError(
            f"{folder} holds a training already: pass --resume or --overwrite, or name another folder"
        )
    check_folder(folder)
