"""When a training stops before its end: by SIGINT or SIGTERM, or when its time is up."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from msad_cli.text import parse_duration


@dataclass(frozen=True)
class Clock:
    """Seconds between two resume states, and on `time.monotonic`'s clock the moment after which the run stops."""

    checkpoint: float
    deadline: float

    @classmethod
    def of(cls, limit: str | None, checkpoint: str) -> "Clock":
        """From the flags `--time` and `--checkpoint`, starting now.

        Raises:
            UsageError: one of them is not a time.
        """
        deadline = time.monotonic() + parse_duration("--time", limit) if limit else math.inf
        return cls(parse_duration("--checkpoint", checkpoint), deadline)


class Stopped(Exception):  # noqa: N818  # it is no error
    """The run was asked to stop, and has saved its state.

    Attributes:
        number: of the signal; 0 for the time limit.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Interruption:
    """The signals that have arrived.

    Attributes:
        number: of the first one; 0 before.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.number = 0
        self._say = say
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
        self._say("stopping; once more ends at once")
        self._raise()

    def _raise(self) -> None:
        if self._at_once and self.number:
            raise KeyboardInterrupt(self.number)


@contextmanager
def interruptible(say: Callable[[str], None]) -> Iterator[Interruption]:
    """Receives the first SIGINT or SIGTERM; a second one acts as it always does, as does the first beside threads.

    Args:
        say: is told that the run is stopping.
    """
    interruption = Interruption(say)
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
