"""Reads and writes model files: checkpoints, exported files, and bundled models by their names."""

import io
import json
import zipfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from so3k_md.config import from_mapping, to_mapping
from so3k_md.errors import So3kError
from so3k_md.files import atomic
from so3k_md.model import FORMAT_VERSION, ModelConfig, So3krates, set_dtype
from so3k_md.model.parts import PLAIN, Parts
from so3k_md.model.weights import file_name, file_weights, load_weights
from so3k_md.needs import GIVEN, needs_of, with_needs
from so3k_md.seals import ZIP_ERRORS, Look, State, members_are_intact, seal_archive, seal_of

EXTRA_FILE = "so3k.json"  # in an exported file: its metadata
# in an exported file, by kind of device: code of the model with compiled parts, without weights; change the
# number whenever the signature of an operator changes
KERNEL_FILES = {"cpu": "so3k_kernels.7.pt", "cuda": "so3k_kernels.cuda.7.pt"}
LARGEST_METADATA = 1 << 20  # bytes
CHECKPOINT_FORMAT = "so3k-md checkpoint 2"
UNSEALED_FORMAT = "so3k-md checkpoint 1"  # of checkpoints without a seal and without all facts of `Needs`
DAMAGED = "is damaged: its bytes do not match the SHA-256 at its end"


def save_checkpoint(
    path: str | Path, model: So3krates, weights: Mapping[str, Tensor], training: dict[str, Any]
) -> None:
    """Write a checkpoint atomically.

    Args:
        path: file to write.
        model: its configuration and needs are stored.
        weights: the state dictionary to store, such as the averaged weights.
        training: optimizer and progress, for resuming; empty in a file meant for use alone.
    """
    document = {
        "format": CHECKPOINT_FORMAT,
        "config": to_mapping(model.config),
        "facts": {name: getattr(model.needs, name) for name in GIVEN},
        "weights": {file_name(name): tensor for name, tensor in weights.items()},
        "training": training,
    }
    # written to memory first: torch's own writer hides that a disk is full
    buffer = io.BytesIO()
    torch.save(document, buffer)
    with atomic(path) as temporary:
        temporary.write_bytes(seal_archive(buffer.getvalue()))


def read_checkpoint(path: str | Path, look: Look | None = None) -> dict[str, Any]:
    """The document of `save_checkpoint`; reads only tensors and plain values, never code.

    A checkpoint without a seal is read if each part has its correct CRC-32.

    Args:
        path: the file.
        look: recent result of `look_at` for the file; None to compute it.

    Raises:
        So3kError: a file that is missing, damaged or of another program.
    """
    path = Path(path)
    if not path.is_file():
        raise So3kError(f"there is no model file {path}: check the name, or train one with so3k-md train")
    state = checked_seal(path, look)
    if state == "absent" and not members_are_intact(path):
        raise So3kError(
            f"{path} is not a readable checkpoint or exported model (truncated, damaged, or of another "
            "program): copy it again, or make one with so3k-md train or so3k-md export"
        )
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types, with advice that is unsafe to follow
        raise So3kError(
            f"{path} is not a readable checkpoint, it contains objects that so3k-md does not write: "
            "make one with so3k-md train"
        ) from error
    form = document.get("format") if isinstance(document, dict) else None
    if not isinstance(form, str) or not form.startswith("so3k-md checkpoint"):
        raise So3kError(f"{path} is not a checkpoint of so3k-md: make one with so3k-md train")
    if form == UNSEALED_FORMAT:
        document["facts"] = {name: document[name] for name in ("elements", "metadata") if name in document}
    elif form != CHECKPOINT_FORMAT:
        raise So3kError(f"{path} is a {form}, this so3k-md reads {CHECKPOINT_FORMAT}: update so3k-md")
    elif state == "absent":
        raise So3kError(f"{path} {DAMAGED}: copy it again, or train again")
    return document


def load(
    path: str | Path,
    device: str = "cpu",
    dtype: torch.dtype | str | None = None,
    look: Look | None = None,
) -> nn.Module:
    """A model ready for evaluation, from a checkpoint, an exported file, or the name of a bundled model.

    A TorchScript file is code: load only files that you trust.

    Args:
        path: file or name.
        device: device of the model.
        dtype: precision of the parameters; None keeps the file's.
        look: recent result of `look_at` for the file; None to compute it.

    Raises:
        So3kError: a file that is missing, damaged or of another program, or an unusable device or dtype.
    """
    path = resolve_model(path)
    place = parse_device(device)
    model = load_torchscript(path, place, look) if is_torchscript(path) else eager_model(path, look)
    if dtype is not None:
        model = set_dtype(model, parse_dtype(dtype))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.to(place).eval()


def eager_model(path: Path, look: Look | None = None) -> So3krates:
    """The model of a checkpoint; arguments as in `read_checkpoint`.

    Raises:
        So3kError: see `read_checkpoint`; or configuration, facts and weights do not fit together.
    """
    document = read_checkpoint(path, look)
    try:
        return model_of(document["config"], document["facts"], document["weights"])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise So3kError(
            f"{path} is a checkpoint whose configuration and weights do not match ({first_line(error)}): "
            "train again"
        ) from error


def model_of(
    config: Mapping[str, Any], facts: Mapping[str, Any], weights: Mapping[str, Tensor], parts: Parts = PLAIN
) -> So3krates:
    """A model from the content of a file.

    Args:
        config: plain values of its configuration.
        facts: values of `needs.GIVEN`; older files lack some.
        weights: by their names in files; constants added by a later version may be missing.
        parts: of the model.
    """
    given = {name: facts[name] for name in GIVEN if name in facts}
    model = So3krates(from_mapping(ModelConfig, config, "model"), given["elements"], parts=parts)
    set_dtype(model, weights["embedding.weight"].dtype)
    load_weights(model, weights)
    return with_needs(model, **given)


def eager(model: Any, parts: Parts = PLAIN) -> So3krates:
    """A model in any form as an eager one, with plain layers or other parts; the same object if it is one.

    Raises:
        So3kError: the model has rounded constants, which a new object would not have.
    """
    if isinstance(model, So3krates) and model.form == parts.form:
        return model
    needs = needs_of(model)
    if is_rounded(model):
        raise So3kError(
            "the model was imported with --rounding peer, and its rounded constants cannot be converted: "
            "import it again with the options that you need"
        )
    facts = {name: getattr(needs, name) for name in GIVEN}
    return model_of(json.loads(needs.config), facts, file_weights(model), parts).requires_grad_(False).eval()


def config_of(model: Any) -> ModelConfig:
    """The shape of a model, eager or exported."""
    return from_mapping(ModelConfig, json.loads(needs_of(model).config), "model")


def is_rounded(model: Any) -> bool:
    """Whether the constants of a model are rounded as in another program; see `convert.rounding`."""
    return metadata(model).get("rounding", "exact") != "exact"


def load_torchscript(path: Path, place: torch.device, look: Look | None = None) -> nn.Module:
    """An exported model on the CPU. Its seal is compared before any of its code runs.

    Args:
        path: the file.
        place: device on which the model will be evaluated.
        look: recent result of `look_at` for the file; None to compute it.

    Raises:
        So3kError: a file that is damaged, of another program or of another format.
    """
    if checked_seal(path, look) == "absent":
        raise So3kError(_why_unsealed(path))
    try:
        model = torch.jit.load(str(path), map_location="cpu")
    except Exception as error:  # of another torch, or a file sealed by another program
        raise So3kError(
            f"{path} is not damaged, but torch {torch.__version__} cannot read it ({first_line(error)}): "
            "export it again"
        ) from error
    version = needs_of(model).format_version if hasattr(model, "needs") else former_version(model)
    if version is None:
        raise So3kError(f"{path} is a TorchScript file of another program: export one with so3k-md export")
    if version != FORMAT_VERSION:
        raise So3kError(
            f"{path} has format {version}, this so3k-md reads format {FORMAT_VERSION}: "
            f"convert it with so3k-md export {path} -o NEW.pt"
        )
    if place.type == "cpu":
        # on CPUs torch fuses nothing, but would search for fusions for seconds in the first calls
        torch.jit.set_fusion_strategy([])
    return model


def former_version(model: Any) -> int | None:
    """The format of a model file of a former version; None for a file of another program."""
    return model.format_version if hasattr(model, "attend") and hasattr(model, "format_version") else None


def checked_seal(path: Path, look: Look | None = None) -> State:
    """The result of `seal_of` for a model file, or of `look`, unless the file is damaged.
    Raises:
        So3kError: the file is damaged or cannot be read.
    """
    state = seal_of(path) if look is None else look.state
    if state == "damaged":
        raise So3kError(f"{path} {DAMAGED}: copy it again, or export or train it again")
    return state


def _why_unsealed(path: Path) -> str:
    """Why a TorchScript file without a seal is not loaded."""
    version = format_of(path)
    if version is None:
        return f"{path} is of another program, truncated or damaged: write one with so3k-md export"
    if version < FORMAT_VERSION:
        return (
            f"{path} has format {version}, this so3k-md reads format {FORMAT_VERSION}: "
            f"convert it with so3k-md export {path} -o NEW.pt"
        )
    return f"{path} {DAMAGED}: copy it again, or export it again"


def format_of(path: Path) -> int | None:
    """The format that an exported file states, read without running its code; None if it states none."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = [entry for entry in archive.infolist() if entry.filename.endswith(f"/extra/{EXTRA_FILE}")]
            if len(found) != 1 or found[0].file_size > LARGEST_METADATA:
                return None
            stated = json.loads(archive.read(found[0])).get("format_version")
    except Exception:  # zipfile and json raise a dozen types for damaged files
        return None
    return stated if isinstance(stated, int) else None


def resolve_model(path: str | Path) -> Path:
    """The file of a path or of the name of a bundled model.

    Raises:
        So3kError: neither exists, or the path is a folder, a pipe or a device.
    """
    path = Path(path)
    try:
        if path.is_file():
            return path
        if path.exists():
            raise So3kError(f"{path} is a folder, a pipe or a device: name a checkpoint or an exported file")
    except OSError as error:  # a folder in the path may not be read, or the name is too long
        raise So3kError(
            f"{path} cannot be read: {error.strerror}; check the path and its permissions"
        ) from error
    bundled = Path(str(files("so3k_md.pretrained"))) / f"{path}.pt"
    if path.name == str(path) and bundled.is_file():
        return bundled
    names = ", ".join(sorted(file.stem for file in bundled.parent.glob("*.pt"))) or "none"
    raise So3kError(f"there is no model file {path}: check the name; bundled models: {names}")


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, by its content."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except ZIP_ERRORS:
        return False


def metadata(model: nn.Module) -> dict[str, Any]:
    """The metadata of a model."""
    return json.loads(needs_of(model).metadata)


def parse_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """float32 or float64, from a name or a dtype.

    Raises:
        So3kError: any other dtype.
    """
    known = {"float32": torch.float32, "float64": torch.float64}
    name = str(dtype).removeprefix("torch.")
    if name not in known:
        raise So3kError(f"dtype {name!r} is not supported: choose float32 or float64")
    return known[name]


def parse_device(device: str) -> torch.device:
    """A device that this machine has.

    Raises:
        So3kError: an unknown device, or one that this machine lacks.
    """
    try:
        parsed = torch.device(device)
        torch.empty(0, device=parsed)
    except (RuntimeError, AssertionError) as error:
        raise So3kError(f"device {device!r} cannot be used here ({first_line(error)}): try cpu") from error
    return parsed


def first_line(error: BaseException) -> str:
    """The message of an exception as one line of bounded length."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
