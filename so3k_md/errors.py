"""The one exception and the one warning that users are meant to see."""


class So3kError(Exception):
    """A mistake that the user can mend: one line with what is wrong, where, and the remedy."""


class So3kWarning(UserWarning):
    """What was asked for is done, and may not mean what it seems to: one line."""
