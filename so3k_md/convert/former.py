"""Exported files of formats 4 and 5 as models: read as data, without running their code."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from so3k_md.checkpoint import checked_seal, first_line, format_of, is_torchscript, model_of
from so3k_md.convert.unpickle import Record, read_torch
from so3k_md.errors import So3kError
from so3k_md.model import So3krates
from so3k_md.needs import GIVEN
from so3k_md.seals import members_are_intact

FORMATS = (4, 5)  # the first of them has no seal


def is_former(path: Path) -> bool:
    """Whether a file is of the former format."""
    return is_torchscript(path) and format_of(path) in FORMATS


def read_former(path: Path) -> So3krates:
    """The model of a file of the former format.

    Raises:
        So3kError: the file is damaged, or not what it says it is.
    """
    if checked_seal(path) == "absent" and not members_are_intact(path):
        raise So3kError(f"{path} is damaged: copy it again, or export the checkpoint that it was made from")
    root = read_torch(path.read_bytes(), str(path))
    try:
        facts = {name: root.state[name] for name in GIVEN}
        model = model_of(json.loads(facts["metadata"])["config"], facts, _tensors(root))
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise So3kError(
            f"{path} has parts that do not fit together ({first_line(error)}): export its checkpoint again"
        ) from error
    return model.requires_grad_(False).eval()


def _tensors(record: Any, prefix: str = "") -> dict[str, Tensor]:
    """All tensors of a module and of the modules below it, by torch's names."""
    found = {}
    for name, value in record.state.items():
        if isinstance(value, Tensor):
            found[f"{prefix}{name}"] = value
        elif isinstance(value, Record) and isinstance(value.state, dict):
            found |= _tensors(value, f"{prefix}{name}.")
    return found
