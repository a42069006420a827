"""The one exception that users are meant to see."""


class So3kError(Exception):
    """A mistake that the user can mend: one line with what is wrong, where, and the remedy."""
