"""Decides which form of a model runs, plain or compiled, and gives the reason."""

import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from so3k_md.checkpoint import (
    KERNEL_FILES,
    eager,
    is_rounded,
    is_torchscript,
    load,
    parse_device,
    parse_dtype,
    resolve_model,
)
from so3k_md.errors import So3kError
from so3k_md.kernels.build import load_kernels
from so3k_md.kernels.parts import COMPILED, kernel_code, with_weights
from so3k_md.model import set_dtype, still_copy
from so3k_md.model.parts import PLAIN
from so3k_md.seals import Look, look_at

WORDS = ("auto", "on", "off")


class Choice(NamedTuple):
    """The form in which a model runs."""

    form: str  # "plain", or the name of compiled parts
    reason: str
    possible: bool = True  # whether the form asked for is available


def choose(model: Any, kernels: str = "auto", device: str | torch.device | None = None) -> Choice:
    """The form in which a model runs on a device in its precision.

    Args:
        model: eager or exported, ready for evaluation.
        kernels: auto: compiled parts if they are built, on a CPU in float32 and float64, on a GPU in float32;
            on: compiled parts; off: plain parts.
        device: on which the model will run; by default the device of its weights.

    Raises:
        So3kError: another value of `kernels`.
    """
    if kernels not in WORDS:
        raise So3kError(f"kernels = {kernels!r} is unknown: choose auto, on or off")
    weight = next(model.parameters())
    if is_compiled(model):
        return Choice(str(model.form), "the given model already has compiled kernels")
    if kernels == "off":
        return Choice(PLAIN.form, "kernels = off")
    kind = weight.device.type if device is None else torch.device(device).type
    if kind not in COMPILED:
        return Choice(PLAIN.form, f"there are no kernels for {kind}", kernels == "auto")
    if kind != "cpu" and weight.dtype != torch.float32:
        return Choice(PLAIN.form, "the kernels for GPUs work in float32", kernels == "auto")
    if is_rounded(model):
        return Choice(
            PLAIN.form, "the kernels have exact constants, the model has rounded ones", kernels == "auto"
        )
    if not load_kernels():
        return Choice(
            PLAIN.form, "the kernels are not built; build them with so3k-md kernels build", kernels == "auto"
        )
    if kind != "cpu" and (fault := torch.ops.so3k.gpu_fault()):
        return Choice(PLAIN.form, fault.removeprefix("[so3k] "), kernels == "auto")
    return Choice(COMPILED[kind].form, "the kernels are built")


def kernels_for(kernels: str, device: str) -> str:
    """The option `kernels` for a model that an engine may move from the CPU to a GPU: auto is off there.

    Args:
        kernels: auto, on or off.
        device: on which the engine calls the model, as far as it is known.
    """
    return "off" if kernels == "auto" and device == "cpu" and torch.cuda.is_available() else kernels


def is_compiled(model: Any) -> bool:
    """Whether a model has compiled parts."""
    return str(model.form) != PLAIN.form


def is_for_gpus(model: Any) -> bool:
    """Whether a model has the compiled parts of GPUs."""
    return str(model.form) == COMPILED["cuda"].form


def accelerated(
    model: Any, kernels: str = "auto", code: bytes | None = None, device: str | torch.device | None = None
) -> Any:
    """The model in the form that `choose` gives; the same object if it already has this form.

    Args:
        model: see `choose`.
        kernels: see there.
        code: result of `kernel_code` for this device, if it is known already.
        device: see `choose`. The weights stay where they are.

    Raises:
        So3kError: another value of `kernels`, or `on` where kernels are not available.
    """
    choice = choose(model, kernels, device)
    if not choice.possible:
        raise So3kError(f"kernels = on is impossible: {choice.reason}")
    if choice.form in (PLAIN.form, str(model.form)):
        return model
    if code is None:
        shape = eager(model)
        place = next(model.parameters()).device if device is None else torch.device(device)
        code = kernel_code(shape.config, tuple(shape.needs.elements), place.type)
    return with_weights(code, model)


def load_accelerated(
    path: str | Path,
    device: str = "cpu",
    dtype: torch.dtype | str | None = None,
    kernels: str = "auto",
    runs_on: str | None = None,
) -> Any:
    """`accelerated` of a model file, with the code of the compiled form from the exported file.

    The same file gives the same object again. Do not change it.

    Args:
        path: see `so3k_md.checkpoint.load`.
        device: see there.
        dtype: see there.
        kernels: see `accelerated`.
        runs_on: device to which the caller will move the model; by default `device`.

    Raises:
        So3kError: see both.
    """
    file = resolve_model(path)
    # loaded once: for each new model object TorchScript compiles its code again, and never frees it
    return _loaded(file, look_at(file), device, dtype, kernels, runs_on or device)


def own_model(
    model: nn.Module,
    device: str = "cpu",
    dtype: torch.dtype | str | None = None,
    kernels: str = "auto",
) -> Any:
    """`fitting_model` as a separate object, which the caller may set, cast and move."""
    made = fitting_model(model, device, dtype, kernels)
    return still_copy(made) if made is model else made


def fitting_model(
    model: str | Path | nn.Module,
    device: str = "cpu",
    dtype: torch.dtype | str | None = None,
    kernels: str = "auto",
    runs_on: str | None = None,
) -> Any:
    """`load_accelerated` of a file, or of a model given as an object, which is returned itself if it fits.

    Args:
        model: a file, the name of a bundled model, or a model, which is not changed.
        device: see `load_accelerated`.
        dtype: see there.
        kernels: see there.
        runs_on: see there.

    Raises:
        So3kError: see there.
    """
    if not isinstance(model, nn.Module):
        return load_accelerated(model, device, dtype, kernels, runs_on)
    weight, place = next(model.parameters()), parse_device(device)
    precision = weight.dtype if dtype is None else parse_dtype(dtype)
    fits = weight.device == place and weight.dtype == precision
    target = place if runs_on is None else torch.device(runs_on)
    if is_compiled(model):  # this form can neither be cast nor moved to another kind of device
        for_target = target.type in COMPILED and str(model.form) == COMPILED[target.type].form
        if fits and for_target and kernels in ("auto", "on"):
            return model
        model = eager(model)
    moved = model if fits else set_dtype(still_copy(model).to(place), precision)
    return accelerated(moved, kernels, device=target)


@lru_cache(maxsize=8)
def _loaded(
    file: Path, look: Look, device: str, dtype: torch.dtype | str | None, kernels: str, runs_on: str
) -> Any:
    target = torch.device(runs_on)
    return accelerated(load(file, device, dtype, look), kernels, kernel_record(file, target.type), target)


def load_frozen(
    path: str | Path,
    device: str,
    dtype: torch.dtype | str | None,
    kernels: str,
) -> tuple[Any, Any]:
    """The model of `load_accelerated` and its `frozen` form; the same file gives the same objects again.

    Args:
        path, device, dtype, kernels: of `load_accelerated`.

    Raises:
        So3kError: see there.
    """
    file = resolve_model(path)
    return _frozen(file, look_at(file), device, dtype, kernels)


@lru_cache(maxsize=8)
def _frozen(
    file: Path,
    look: Look,
    device: str,
    dtype: torch.dtype | str | None,
    kernels: str,
) -> tuple[Any, Any]:
    model = _loaded(file, look, device, dtype, kernels, device)
    return model, frozen(model)


def frozen(model: Any) -> Any:
    """A scripted model with settings and weights as constants, which saves calls; other models unchanged."""
    if not isinstance(model, torch.jit.ScriptModule):
        return model
    stage = "gradient_tensors" if hasattr(model, "gradient_tensors") else "gradient"
    return torch.jit.freeze(model.eval(), preserved_attrs=[stage])


def kernel_record(path: Path, device: str = "cpu") -> bytes | None:
    """The code of the compiled form of a file, without weights, or None if the file has none.

    Args:
        path: a file that `load` has already checked.
        device: kind of device for which the form is.
    """
    if device not in KERNEL_FILES or not is_torchscript(path):
        return None
    with zipfile.ZipFile(path) as archive:
        found = [name for name in archive.namelist() if name.endswith(f"/extra/{KERNEL_FILES[device]}")]
        return archive.read(found[0]) if found else None
