"""The exceptions and the warning that users see."""


class So3kError(Exception):
    """An error that the user can correct: one line with the fault, its place, and the remedy."""


class Stopped(KeyboardInterrupt):
    """A signal stopped the program after it saved its state; one line, and the exit code."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class So3kWarning(UserWarning):
    """The program continues, but the result may not be what the user expects: one line."""
