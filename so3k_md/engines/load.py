"""A model file as engines want it: with compiled kernels where these serve it."""

import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from so3k_md.checkpoint import is_torchscript, load, parse_device, parse_dtype, resolve_model
from so3k_md.export.contract import KERNEL_FILE
from so3k_md.kernels.model import accelerated, eager
from so3k_md.model import set_dtype, still_copy
from so3k_md.physical_stages import set_long_range
from so3k_md.seals import Look, look_at


def load_accelerated(
    path: str | Path, device: str = "cpu", dtype: torch.dtype | str | None = None, kernels: str = "auto"
) -> Any:
    """`accelerated` of a model file, by the code that an exported file holds for this.

    The same file gives the same object again, not to be changed.

    Args:
        path: see `so3k_md.checkpoint.load`.
        device: see there.
        dtype: see there.
        kernels: see `so3k_md.kernels.model.accelerated`.

    Raises:
        So3kError: see both.
    """
    file = resolve_model(path)
    # loaded once: what TorchScript compiles around a model is compiled again, and stays, for each new one
    return _loaded(file, look_at(file), device, dtype, kernels)


def own_model(
    model: nn.Module,
    device: str = "cpu",
    dtype: torch.dtype | str | None = None,
    kernels: str = "auto",
) -> Any:
    """`fitting_model`, and never the object that was given: the caller may set, cast and move it."""
    made = fitting_model(model, device, dtype, kernels)
    return still_copy(made) if made is model else made


def fitting_model(
    model: str | Path | nn.Module,
    device: str = "cpu",
    dtype: torch.dtype | str | None = None,
    kernels: str = "auto",
) -> Any:
    """`load_accelerated` of a file, or the same of a model given as an object: itself where it fits.

    Args:
        model: a file, the name of a shipped model, or a model, which stays as it is.
        device: see `load_accelerated`.
        dtype: see there.
        kernels: see there.

    Raises:
        So3kError: see there.
    """
    if not isinstance(model, nn.Module):
        return load_accelerated(model, device, dtype, kernels)
    weight, place = next(model.parameters()), parse_device(device)
    precision = weight.dtype if dtype is None else parse_dtype(dtype)
    fits = weight.device == place and weight.dtype == precision
    if hasattr(model, "kernels"):  # a form that can neither be cast nor moved
        if fits and kernels in ("auto", "on"):
            return model
        model = eager(model)
    return accelerated(model if fits else set_dtype(still_copy(model).to(place), precision), kernels)


def _made(file: Path, look: Look, device: str, dtype: torch.dtype | str | None, kernels: str) -> Any:
    """The model of a file, an object of its own."""
    return accelerated(load(file, device, dtype, look), kernels, kernel_record(file))


@lru_cache(maxsize=8)
def _loaded(file: Path, look: Look, device: str, dtype: torch.dtype | str | None, kernels: str) -> Any:
    return _made(file, look, device, dtype, kernels)


def load_frozen(
    path: str | Path,
    device: str,
    dtype: torch.dtype | str | None,
    kernels: str,
    coulomb: str,
    cutoff_lr: float,
) -> tuple[Any, Any]:
    """The same with settings, and its `frozen` form; the same file and settings give the same objects again.

    Args:
        path, device, dtype, kernels: of `load_accelerated`.
        coulomb, cutoff_lr: of `so3k_md.physical_stages.set_long_range`.

    Raises:
        So3kError: see both.
    """
    file = resolve_model(path)
    return _frozen(file, look_at(file), device, dtype, kernels, coulomb, cutoff_lr)


@lru_cache(maxsize=8)
def _frozen(
    file: Path,
    look: Look,
    device: str,
    dtype: torch.dtype | str | None,
    kernels: str,
    coulomb: str,
    cutoff_lr: float,
) -> tuple[Any, Any]:
    model = _made(file, look, device, dtype, kernels)
    set_long_range(model, coulomb, cutoff_lr)
    return model, frozen(model)


def frozen(model: Any) -> Any:
    """A scripted model with settings and weights as constants, which saves calls; others as they are."""
    if not isinstance(model, torch.jit.ScriptModule):
        return model
    return torch.jit.freeze(model.eval(), preserved_attrs=["gradient"])


def kernel_record(path: Path) -> bytes | None:
    """The form with compiled kernels as code without weights, or None if the file holds none.

    Args:
        path: a file that `load` has found intact.
    """
    if not is_torchscript(path):
        return None
    with zipfile.ZipFile(path) as archive:
        found = [name for name in archive.namelist() if name.endswith(f"/extra/{KERNEL_FILE}")]
        return archive.read(found[0]) if found else None
