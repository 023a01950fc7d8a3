"""SIGINT and SIGTERM during a training: the first is remembered until the state is saved, the second ends at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msad_cli.cli.console import console


class Interruption:
    """What has arrived.

    Attributes:
        number: of the first signal; 0 before.
    """

    def __init__(self) -> None:
        self.number = 0
        self._at_once = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A stretch that may be left anywhere: here a signal raises `KeyboardInterrupt` with its number."""
        self._at_once = True
        try:
            self._raise()
            yield
        finally:
            self._at_once = False

    def receive(self, number: int) -> None:
        """Notes a signal."""
        self.number = number
        console.print("stopping; once more ends at once")
        self._raise()

    def _raise(self) -> None:
        if self._at_once and self.number:
            raise KeyboardInterrupt(self.number)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Receives the first SIGINT or SIGTERM; a second one acts as it always does, as does the first beside threads."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        # Only the main one can take signals; a program that calls msad from another has its own way with them.
        yield interruption
        return
    before: dict[signal.Signals, Any] = {}
    owner = os.getpid()

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    def catch(number: int, _frame: object) -> None:
        if os.getpid() != owner:
            return  # a loader worker, which a terminal's Ctrl-C reaches too; it lives until the loader ends
        restore()
        interruption.receive(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, catch)
    try:
        yield interruption
    finally:
        restore()
