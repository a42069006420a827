"""Model files: checkpoints of training, exported TorchScript files, and the models that come with so3k-md."""

import io
import json
import zipfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from so3k_md.config import from_mapping, to_mapping
from so3k_md.errors import So3kError
from so3k_md.files import atomic
from so3k_md.model import FORMAT_VERSION, ModelConfig, So3krates, set_dtype

CHECKPOINT_FORMAT = "so3k-md checkpoint 1"


def save_checkpoint(
    path: str | Path, model: So3krates, weights: Mapping[str, Tensor], training: dict[str, Any]
) -> None:
    """Write a checkpoint atomically.

    Args:
        path: file to write.
        model: its configuration, elements and metadata are stored.
        weights: the state dictionary to store, such as the averaged weights.
        training: optimizer and progress, for resuming; empty in a file meant for use alone.
    """
    document = {
        "format": CHECKPOINT_FORMAT,
        "config": to_mapping(model.config),
        "elements": model.elements,
        "metadata": model.metadata,
        "weights": dict(weights),
        "training": training,
    }
    # by way of memory: torch's own writer turns a full disk into an error that says nothing of it
    buffer = io.BytesIO()
    torch.save(document, buffer)
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The document of `save_checkpoint`; only tensors and plain values are read, never code.

    Raises:
        So3kError: missing, truncated or foreign file.
    """
    path = Path(path)
    if not path.is_file():
        raise So3kError(f"there is no model file {path}: check the name, or train one with so3k-md train")
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for damaged files
        raise So3kError(
            f"{path} is not a readable checkpoint (truncated or of another program): {_first_line(error)}"
        ) from error
    if not isinstance(document, dict) or document.get("format") != CHECKPOINT_FORMAT:
        raise So3kError(f"{path} is not a checkpoint of so3k-md: make one with so3k-md train")
    return document


def load(path: str | Path, device: str = "cpu", dtype: torch.dtype | str | None = None) -> nn.Module:
    """A model ready for evaluation, from a checkpoint, an exported file, or the name of a shipped model.

    A TorchScript file is code: load only files that you trust.

    Args:
        path: file or name.
        device: where the model goes.
        dtype: precision of the parameters; None keeps the file's.

    Raises:
        So3kError: missing, truncated or foreign file, or an unusable device or dtype.
    """
    path = resolve_model(path)
    place = parse_device(device)
    if is_torchscript(path):
        model: nn.Module = load_torchscript(path, place)
    else:
        document = read_checkpoint(path)
        config = from_mapping(ModelConfig, document["config"], "model")
        eager = So3krates(config, document["elements"])
        set_dtype(eager, document["weights"]["embedding.weight"].dtype)
        # constants that a later version added are not in the file
        eager.load_state_dict(dict(eager.named_buffers()) | document["weights"])
        eager.metadata = document["metadata"]
        model = eager
    if dtype is not None:
        model = set_dtype(model, parse_dtype(dtype))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.to(place).eval()


def load_torchscript(path: Path, place: torch.device, record: BinaryIO | None = None) -> nn.Module:
    """An exported model, still on the CPU.

    Args:
        path: the file.
        place: where the model will be evaluated.
        record: within it, if another model than the file's own is wanted.

    Raises:
        So3kError: a truncated or foreign file, or one of another version.
    """
    try:
        model = torch.jit.load(record or str(path), map_location="cpu")
    except Exception as error:  # a damaged archive raises RuntimeError, ValueError or worse
        raise So3kError(
            f"{path} is not a readable TorchScript file (truncated?): {_first_line(error)}"
        ) from error
    version = getattr(model, "format_version", None)
    if version is None or not hasattr(model, "attend"):
        raise So3kError(f"{path} is a TorchScript file of another program: export one with so3k-md export")
    if version != FORMAT_VERSION:
        raise So3kError(
            f"{path} has format {version}, this so3k-md reads format {FORMAT_VERSION}: export it again"
        )
    if place.type == "cpu":
        # the CPU has no fuser, but would look for fusions during the first calls, for seconds
        torch.jit.set_fusion_strategy([])
    return model


def resolve_model(path: str | Path) -> Path:
    """The file of a path, or of the name of a shipped model.

    Raises:
        So3kError: neither exists.
    """
    if Path(path).is_file():
        return Path(path)
    shipped = Path(str(files("so3k_md.pretrained"))) / f"{path}.pt"
    if Path(path).name == str(path) and shipped.is_file():
        return shipped
    names = ", ".join(sorted(file.stem for file in shipped.parent.glob("*.pt"))) or "none"
    raise So3kError(f"there is no model file {path}: check the name; models that come with so3k-md: {names}")


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, by its content."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def metadata(model: nn.Module) -> dict[str, Any]:
    """What a model says of itself."""
    return json.loads(str(model.metadata))


def parse_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """float32 or float64, by name or as such.

    Raises:
        So3kError: any other.
    """
    known = {"float32": torch.float32, "float64": torch.float64}
    name = str(dtype).removeprefix("torch.")
    if name not in known:
        raise So3kError(f"dtype {name!r} is not supported: choose float32 or float64")
    return known[name]


def parse_device(device: str) -> torch.device:
    """A device that this machine has.

    Raises:
        So3kError: unknown or absent.
    """
    try:
        parsed = torch.device(device)
        torch.empty(0, device=parsed)
    except (RuntimeError, AssertionError) as error:
        raise So3kError(f"device {device!r} cannot be used here ({_first_line(error)}): try cpu") from error
    return parsed


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
