"""Writes a model as one TorchScript file with its metadata."""

import copy
import io
import json
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from so3k_md.checkpoint import is_rounded
from so3k_md.config import to_mapping
from so3k_md.export.contract import EXTRA_FILE, FORMAT_VERSION, KERNEL_FILES
from so3k_md.export.verify import verify
from so3k_md.files import atomic
from so3k_md.kernels.build import known_operators, load_kernels
from so3k_md.kernels.parts import emptied, kernel_code, with_weights
from so3k_md.model import So3krates, set_dtype, still_copy, weights_hash
from so3k_md.needs import with_needs
from so3k_md.seals import seal_archive


def script(model: So3krates) -> torch.jit.ScriptModule:
    """The TorchScript form of a model, stages and attributes included."""
    with warnings.catch_warnings():
        # TorchScript is deprecated in PyTorch, but openmm-torch and libtorch in LAMMPS load no other form
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(model.eval())


def describe(model: So3krates, name: str) -> dict[str, Any]:
    """The metadata of an exported file: the metadata from training, and facts about the model."""
    from so3k_md import __version__

    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    needs = model.needs
    references = {str(z): float(model.energies.head.shift[z]) for z in needs.elements}
    return json.loads(needs.metadata) | {
        "name": name,
        "format_version": FORMAT_VERSION,
        "config": to_mapping(model.config),
        "elements": needs.elements,
        "units": {"length": "Angstrom", "energy": "eV"},
        "dtype": dtype,
        "cutoff_angstrom": needs.cutoff,
        "nonlocal": needs.nonlocal_kind,
        "energy_reference_ev": references,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights_sha256": weights_hash(model),
        "versions": {"so3k_md": __version__, "torch": torch.__version__, "python": sys.version.split()[0]},
    }


def save(model: So3krates, path: str | Path, name: str, kernels: str = "auto") -> dict[str, float]:
    """Script a model, write it to a temporary file, verify this file, and only then give it its name.

    The file also contains the forms that call the compiled kernels of CPUs and of GPUs, as code without
    weights. If the kernels are built, LAMMPS, ASE and OpenMM set the weights of the file in this code.

    Args:
        model: the eager model in the precision in which it is to be stored.
        path: the `.pt` file.
        name: name of the model in its metadata.
        kernels: auto or off: whether the file contains the form with compiled kernels.

    Returns:
        The largest relative deviation of each check.

    Raises:
        So3kError: a check failed, or the file cannot be written.
    """
    model = still_copy(model)
    with_needs(model, metadata=json.dumps(describe(model, name)))
    scripted = script(model)
    extra: dict[str, str | bytes] = {EXTRA_FILE: model.needs.metadata}
    fast = None
    if kernels != "off" and not is_rounded(model):
        codes: dict[str, bytes] = {}
        for device in KERNEL_FILES:
            code = kernel_code(model.config, tuple(model.needs.elements), device)
            with known_operators():
                codes[device] = archive(emptied(with_weights(code, model)))
        extra.update({KERNEL_FILES[device]: code for device, code in codes.items()})
        if load_kernels():
            fast = with_weights(codes["cpu"], set_dtype(copy.deepcopy(model), torch.float32))
    with atomic(path) as temporary:
        temporary.write_bytes(archive(scripted, extra))
        return verify(model, scripted, temporary, fast)


def archive(scripted: Any, extra: Mapping[str, str | bytes] | None = None) -> bytes:
    """A TorchScript file as sealed bytes, without the source paths of the machine that wrote it."""
    # written to memory first: libtorch ends the process if it writes to a full disk
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer, _extra_files=dict(extra or {}))
    return seal_archive(without_debug_records(buffer.getvalue()))


def without_debug_records(archive: bytes) -> bytes:
    """The same TorchScript file without the source paths of the machine that wrote it."""
    stripped = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(stripped, "w") as target:
        for record in source.infolist():
            if not record.filename.endswith(".debug_pkl"):
                target.writestr(record.filename, source.read(record))
    return stripped.getvalue()
