"""Limits for size, depth and number of values of files of other programs; no real model exceeds them."""

from typing import Any

from so3k_md.errors import So3kError

# SO3LR has 2.2 MB, 22,000 operations of a pickle, values 30 deep, and names of 100 letters.
MAX_BYTES = 2**28
MAX_OPERATIONS = 300_000
MAX_VALUES = 300_000
MAX_DEPTH = 150
MAX_NAME = 300
MAX_MODULES = 20_000
COPIES = 4  # tensors may share numbers; together they have at most this many times the bytes of the file
PLAIN = (str, bytes, int, float, bool, type(None))


def brief(value: Any) -> str:
    """A value of a foreign file as text for messages: short plain values unchanged, others by their type."""
    if isinstance(value, str):
        return value if len(value) <= 80 and value.isprintable() else repr(value[:40]) + "..."
    if isinstance(value, int | float | None) and (not isinstance(value, int) or abs(value) < 2**64):
        return str(value)
    return f"a value of the type {type(value).__name__}"


def check_size(size: int, what: str) -> None:
    """Refuse a file that is larger than any model.

    Args:
        size: bytes.
        what: the file, for the message.

    Raises:
        So3kError: see above.
    """
    if size > MAX_BYTES:
        raise So3kError(
            f"{what} has {size / 2**20:.0f} MiB, and models of this family have less than "
            f"{MAX_BYTES / 2**20:.0f}: name another file"
        )


def check_key(key: Any) -> None:
    """Refuse a key for which a lookup in a dictionary or set may take long.

    Raises:
        So3kError: a nested key, a very long one, or a whole number of which many can have one hash.
    """
    plain = isinstance(key, PLAIN) or getattr(key, "__hash__", None) is object.__hash__
    whole = isinstance(key, int) and abs(key) >= 2**60
    if not plain and not isinstance(key, type) or whole:
        raise So3kError(f"it has {brief(key)} as a key of a dictionary or set")
    if isinstance(key, str | bytes) and len(key) > MAX_NAME:
        raise So3kError(f"it has a name of {len(key)} letters, more than {MAX_NAME}")


class Count:
    """Counts the values in nested containers, each as often as it is referred to.

    Objects with parts are counted once, because the conversion keeps its result for each; they may contain
    themselves, containers may not.

    Args:
        objects: their type.
        parts: the attributes that hold their parts.
    """

    def __init__(self, objects: type, parts: tuple[str, ...]):
        self.objects, self.parts = objects, parts
        self.counts: dict[int, int] = {}  # 0 for a container that is being counted

    def __call__(self, value: Any, depth: int = 0) -> int:
        """The number of values of which `value` consists.

        Raises:
            So3kError: too many, too deep, or a container that contains itself.
        """
        if not isinstance(value, (dict, list, tuple, set, frozenset, self.objects)):
            return 1
        if depth > MAX_DEPTH:
            raise So3kError(f"its values are nested more than {MAX_DEPTH} deep")
        is_object, known = isinstance(value, self.objects), self.counts.get(id(value))
        if is_object and known is not None:
            return 1
        if known is not None:
            if known == 0:
                raise So3kError("it holds a list or a dictionary that contains itself")
            return known
        self.counts[id(value)] = 0
        members: Any = (getattr(value, part) for part in self.parts) if is_object else value
        children = list(members)
        if isinstance(value, dict):
            children += value.values()
        total = 1
        for child in children:
            total += self(child, depth + 1)
            if total > MAX_VALUES:
                raise So3kError(f"it contains more than {MAX_VALUES} values")
        self.counts[id(value)] = total
        return total


def check_name(name: str) -> str:
    """The name of a tensor, the path through the modules that contain it; refuses a name that is too long.

    Raises:
        So3kError: see above.
    """
    if len(name) > MAX_NAME:
        raise So3kError(f"has a tensor whose name {name[:40]}... has more than {MAX_NAME} letters")
    return name
