"""The exceptions and the one warning that users are meant to see."""


class So3kError(Exception):
    """A mistake that the user can mend: one line with what is wrong, where, and the remedy."""


class Stopped(KeyboardInterrupt):
    """A signal asked the program to stop, and it has put things in order; one line, and the exit code."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class So3kWarning(UserWarning):
    """What was asked for is done, and may not mean what it seems to: one line."""
