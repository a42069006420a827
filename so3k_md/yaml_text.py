"""Reads YAML of bounded size, depth and number of values."""

from collections import Counter
from typing import Any

import yaml

from so3k_md.errors import So3kError

LARGEST_TEXT = 200_000  # characters of a file of settings
MOST_NODES = 10_000  # values in it, each alias counted in full
DEEPEST = 20  # levels


def read_yaml(text: str, where: str) -> Any:
    """Plain values from YAML of bounded size, depth and number of values.

    Args:
        text: of the file.
        where: its name, for messages.

    Raises:
        So3kError: no YAML, or none that a file of settings can be.
    """
    if len(text) > LARGEST_TEXT:
        raise So3kError(
            f"{where} has {len(text):,} characters, more than {LARGEST_TEXT:,}: give a file of settings"
        )
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return None
        if _count(node, {}, 1) > MOST_NODES:
            raise So3kError(
                f"{where} contains more than {MOST_NODES:,} values, aliases counted in full: shorten it"
            )
        _refuse_duplicate_keys(node, where)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise So3kError(f"{where} is not valid YAML: {reason}; correct this line") from error


def _refuse_duplicate_keys(node: yaml.Node, where: str) -> None:
    """Refuse a key that occurs twice in one mapping, of which YAML would use the last."""
    if isinstance(node, yaml.MappingNode):
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, count in counts.items():
            if count > 1:
                line = node.start_mark.line + 1
                raise So3kError(
                    f"{where}: the key {key} appears twice in the section that begins at line {line}: remove "
                    "one"
                )
    if isinstance(node, yaml.CollectionNode):
        for item in node.value:
            for child in item if isinstance(item, tuple) else (item,):
                _refuse_duplicate_keys(child, where)


def _count(node: yaml.Node, known: dict[int, float], level: int) -> float:
    """Number of values in a node; infinite if it is too deep or contains itself."""
    if id(node) in known:
        return known[id(node)]
    if level > DEEPEST:
        return float("inf")
    known[id(node)] = float("inf")
    children = [child for item in node.value for child in (item if isinstance(item, tuple) else (item,))]
    inside = children if isinstance(node, yaml.CollectionNode) else []
    known[id(node)] = 1 + sum(_count(child, known, level + 1) for child in inside)
    return known[id(node)]
