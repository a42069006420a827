"""The one exception and the one warning that users are meant to see."""

from collections.abc import Iterator
from contextlib import contextmanager

MODEL_TAG = "[so3k]"  # begins what scripted code has to say to the user


class So3kError(Exception):
    """A mistake that the user can mend: one line with what is wrong, where, and the remedy."""


class So3kWarning(UserWarning):
    """What was asked for is done, and may not mean what it seems to: one line."""


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Give the refusals of a model, which scripted code can raise as RuntimeError only, the usual form.

    Args:
        where: what to call the structure.

    Raises:
        So3kError: what the model said.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if MODEL_TAG not in text:
            raise
        said = text.rpartition(MODEL_TAG)[2].strip().splitlines()[0]
        raise So3kError(f"{where}: {said}") from error
