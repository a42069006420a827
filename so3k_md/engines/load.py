"""A model file as engines want it: with compiled kernels where these serve it."""

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from so3k_md.checkpoint import (
    is_torchscript,
    load,
    load_torchscript,
    parse_device,
    parse_dtype,
    resolve_model,
)
from so3k_md.errors import So3kError
from so3k_md.export.contract import KERNEL_FILE
from so3k_md.kernels.build import load_kernels
from so3k_md.kernels.model import accelerated


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


def kernel_form(path: Path, place: torch.device) -> Any:
    """The model in float32 that calls the compiled kernels, or None if the file holds none.

    Raises:
        So3kError: a damaged file, or one of another version.
    """
    if not is_torchscript(path):
        return None
    with zipfile.ZipFile(path) as archive:
        found = [name for name in archive.namelist() if name.endswith(f"/extra/{KERNEL_FILE}")]
        try:
            record = archive.read(found[0]) if found else b""
        except zipfile.BadZipFile as error:
            raise So3kError(f"{path} is damaged ({error}): export it again") from error
    return load_torchscript(path, place, io.BytesIO(record)).eval() if record else None
