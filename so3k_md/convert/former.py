"""Exported files of format 4, which have no seal, as models: read as data, without running their code."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from so3k_md.checkpoint import first_line, format_of, is_torchscript
from so3k_md.config import from_mapping
from so3k_md.convert.unpickle import Record, read_torch
from so3k_md.errors import So3kError
from so3k_md.facts import Facts, set_facts
from so3k_md.model import So3krates, set_dtype
from so3k_md.model_config import ModelConfig
from so3k_md.seals import members_are_intact

FORMAT = 4


def is_former(path: Path) -> bool:
    """Whether a file is of the former format."""
    return is_torchscript(path) and format_of(path) == FORMAT


def read_former(path: Path) -> So3krates:
    """The model of a file of the former format.

    Raises:
        So3kError: the file is damaged, or not what it says it is.
    """
    if not members_are_intact(path):
        raise So3kError(f"{path} is damaged: copy it again, or export the checkpoint that it was made from")
    root = read_torch(path.read_bytes(), str(path))
    try:
        facts = Facts(**{name: root.state[name] for name in Facts._fields})
        config = json.loads(facts.metadata)["config"]
        model = So3krates(from_mapping(ModelConfig, config, "model"), facts.elements)
        weights = _tensors(root)
        set_dtype(model, weights["embedding.weight"].dtype)
        model.load_state_dict({name: weights[name] for name in model.state_dict()})
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise So3kError(
            f"{path} has parts that do not fit together ({first_line(error)}): export its checkpoint again"
        ) from error
    set_facts(model, facts)
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
