"""A model file as engines want it: with compiled kernels where these serve it."""

import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from so3k_md.checkpoint import (
    checked_seal,
    is_torchscript,
    load,
    load_torchscript,
    parse_device,
    parse_dtype,
    resolve_model,
)
from so3k_md.export.contract import KERNEL_FILE
from so3k_md.kernels.build import load_kernels
from so3k_md.kernels.model import accelerated, eager
from so3k_md.model import set_dtype, still_copy


def load_accelerated(
    path: str | Path, device: str = "cpu", dtype: torch.dtype | str | None = None, kernels: str = "auto"
) -> Any:
    """`accelerated` of a model file, which need not be made where an exported file holds that form.

    Args:
        path: see `so3k_md.checkpoint.load`.
        device: see there.
        dtype: see there.
        kernels: see `so3k_md.kernels.model.accelerated`.

    Raises:
        So3kError: see both.
    """
    place = parse_device(device)
    fits = place.type == "cpu" and (dtype is None or parse_dtype(dtype) == torch.float32)
    if fits and kernels in ("auto", "on") and load_kernels():
        made = kernel_form(resolve_model(path), place)
        if made is not None:
            return made
    return accelerated(load(path, device, dtype), kernels)


def own_model(
    model: str | Path | nn.Module,
    device: str = "cpu",
    dtype: torch.dtype | str | None = None,
    kernels: str = "auto",
) -> Any:
    """`fitting_model`, and never the object that was given: the caller may set, cast and move it."""
    made = fitting_model(model, device, dtype, kernels)
    return still_copy(made) if isinstance(model, nn.Module) and made is model else made


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


def kernel_form(path: Path, place: torch.device) -> Any:
    """The model in float32 that calls the compiled kernels, or None if the file holds none.

    Raises:
        So3kError: a damaged file, or one of another version.
    """
    if not is_torchscript(path) or checked_seal(path) == "absent":
        return None
    with zipfile.ZipFile(path) as archive:
        found = [name for name in archive.namelist() if name.endswith(f"/extra/{KERNEL_FILE}")]
        record = archive.read(found[0]) if found else b""
    return load_torchscript(path, place, io.BytesIO(record)).eval() if record else None
