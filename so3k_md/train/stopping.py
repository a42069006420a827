"""Stops a training at a signal after saving it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Request(NamedTuple):
    """A request to stop; empty until a signal comes."""

    signals: list[int]

    @property
    def made(self) -> bool:
        """Whether a signal has come."""
        return bool(self.signals)

    @property
    def name(self) -> str:
        """The name of the signal."""
        return "Ctrl-C" if self.signals[0] == signal.SIGINT else signal.Signals(self.signals[0]).name

    @property
    def code(self) -> int:
        """The exit code of a process that the signal ends."""
        return 128 + self.signals[0]


@contextmanager
def stop_on_signal() -> Iterator[Request]:
    """Record the first SIGINT or SIGTERM instead of ending; the second one ends the process at once."""
    request = Request([])
    if threading.current_thread() is not threading.main_thread():
        yield request  # only the main thread may set handlers
        return

    def note(number: int, _: FrameType | None) -> None:
        request.signals.append(number)
        for each in SIGNALS:
            signal.signal(each, before[each])

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number in SIGNALS:
            signal.signal(number, before[number])
