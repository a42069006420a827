"""Builds dataclasses from plain values, and refuses unknown keys and wrong types."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from so3k_md.errors import So3kError

T = TypeVar("T")


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str, base: T | None = None) -> T:
    """A dataclass from plain values; every key must exist and every value have the field's type.

    A field that ends in an underscore, because its name is a Python keyword, has no underscore in files. A
    key of the class attribute RETIRED, from files of former versions, is accepted only with its one listed
    value.

    Args:
        cls: the dataclass.
        values: keys and values as read from a file.
        where: name of the section in messages, such as "model".
        base: take missing keys from this instance instead of the defaults.

    Raises:
        So3kError: unknown key (naming the nearest one), wrong type, or missing required key.
    """
    fields = {field.name.rstrip("_"): field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    parsed = {}
    retired: Mapping[str, tuple[Any, str]] = getattr(cls, "RETIRED", {})
    for key, value in values.items():
        if key in retired:
            if value != retired[key][0]:
                raise So3kError(f"{where}.{key} = {shorten(value)} is no longer a setting: {retired[key][1]}")
            continue
        if key not in fields:
            raise So3kError(f"unknown key {where}.{str(key)[:60]}: {nearest(str(key), list(fields))}")
        name = fields[key].name
        parsed[name] = _coerce(value, hints[name], f"{where}.{key}")
    if base is not None:
        return dataclasses.replace(base, **parsed)  # type: ignore[type-var]
    for key, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in parsed:
            raise So3kError(f"missing key {where}.{key}: {field.metadata.get('doc', 'it is required')}")
    return cls(**parsed)


def to_mapping(config: Any) -> dict[str, Any]:
    """The plain values of a dataclass, keyed as in a file."""
    return {
        key.rstrip("_"): list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(config).items()
    }


def defaults(cls: type) -> dict[str, Any]:
    """The default of every field of a dataclass that has one, keyed as in a file."""
    fields = [field for field in dataclasses.fields(cls) if field.default is not dataclasses.MISSING]
    return {field.name.rstrip("_"): field.default for field in fields}


def nearest(word: str, known: list[str]) -> str:
    """The remedy for an unknown word: the closest known word, or all known words."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    return f"did you mean {close[0]}?" if close else f"choose one of {', '.join(known)}"


def shorten(value: Any) -> str:
    """A value as text, shortened for a message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """`value` as the annotated type; accepts YAML's types, and numbers such as 1e-3."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _coerce(value, next(a for a in arguments if a is not type(None)), where)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_coerce(item, arguments[0], where) for item in value)
    if origin is dict and isinstance(value, Mapping):
        return {
            _coerce(key, arguments[0], where): _coerce(item, arguments[1], f"{where}.{key}")
            for key, item in value.items()
        }
    if hint is float and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            pass
        else:
            if math.isfinite(number):
                return number
            raise So3kError(f"{where} = {number} is impossible: a finite number is needed")
    elif hint in (int, bool, str) and type(value) is hint:
        return value
    expected = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}.get(
        hint, "keys and values" if origin is dict else "a list"
    )
    raise So3kError(f"{where} = {shorten(value)} has the wrong type: {expected} is needed")
