"""Reads exported files of formats 4 to 6 as data, without running their code."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from so3k_md.checkpoint import checked_seal, first_line, format_of, is_torchscript, model_of
from so3k_md.convert.unpickle import Record, read_torch
from so3k_md.errors import So3kError
from so3k_md.model import So3krates
from so3k_md.model.weights import file_name
from so3k_md.needs import GIVEN
from so3k_md.seals import members_are_intact

FORMATS = (4, 5, 6)  # files of format 4 have no seal
NEEDS = {
    "elements": 2,
    "singlets_only": 13,
    "energy_shift": 14,
    "metadata": 15,
}  # places in `needs` of format 6
GROUPING = "totals."  # in names of format 6, of `charge_and_spin`


def is_former(path: Path) -> bool:
    """Whether a file has one of these formats."""
    return is_torchscript(path) and format_of(path) in FORMATS


def read_former(path: Path) -> So3krates:
    """The model of a file of one of these formats.

    Raises:
        So3kError: the file is damaged, or its content does not match its format.
    """
    if checked_seal(path) == "absent" and not members_are_intact(path):
        raise So3kError(f"{path} is damaged: fetch it again, or export its checkpoint again")
    root = read_torch(path.read_bytes(), str(path))
    try:
        facts = _facts(root)
        weights = {file_name(name.replace(GROUPING, "")): value for name, value in _tensors(root).items()}
        model = model_of(json.loads(facts["metadata"])["config"], facts, weights)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise So3kError(
            f"{path} has parts that do not fit together ({first_line(error)}): export its checkpoint again"
        ) from error
    return model.requires_grad_(False).eval()


def _facts(record: Any) -> dict[str, Any]:
    """The values of `needs.GIVEN`: attributes before format 6, elements of one tuple in it."""
    needs = record.state.get("needs")
    return {name: record.state[name] if needs is None else needs[NEEDS[name]] for name in GIVEN}


def _tensors(record: Any, prefix: str = "") -> dict[str, Tensor]:
    """All tensors of a module and of its submodules, by torch's names."""
    found = {}
    for name, value in record.state.items():
        if isinstance(value, Tensor):
            found[f"{prefix}{name}"] = value
        elif isinstance(value, Record) and isinstance(value.state, dict):
            found |= _tensors(value, f"{prefix}{name}.")
    return found
