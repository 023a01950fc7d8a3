"""The run folder as the processes after the first have it: they read it, and write nothing."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from msad_cli.runs.folder import RunFolder, Setting


class Onlooker(RunFolder):
    """A run folder into which another process writes."""

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """The first process has the lock."""
        yield

    def start(self, settings: Mapping[str, Setting], line: str) -> None:
        """Nothing is written."""

    def record(self, settings: Mapping[str, Setting]) -> None:
        """Nothing is written."""

    def add_row(self, row: dict[str, float]) -> list[dict[str, float]]:
        """Nothing is written, and there are no rows."""
        return []

    def finish(self, metrics: dict[str, Any]) -> None:
        """Nothing is written."""

    def log(self, line: str) -> None:
        """Nothing is written."""

    def save_state(self, state: dict[str, Any]) -> None:
        """Nothing is written."""
