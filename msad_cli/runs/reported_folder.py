"""The run folder of a run that reports to trackers too: what goes into results.csv and metrics.json goes there."""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msad_cli.runs.folder import RunFolder, Setting, json_text
from msad_cli.runs.trackers import TRACKERS, Tracker
from msad_cli.system.files import remove, write_text


class ReportedFolder(RunFolder):
    """A run folder with trackers. One that fails is left out from then on, which is said once; no run ends for it.

    Args:
        model: the model file to be written.
        names: of trackers that can be used.
        announce: takes a line that says what failed; without it, trackers are told to print nothing either.
    """

    def __init__(self, model: Path, names: tuple[str, ...], announce: Callable[[str], None] | None) -> None:
        super().__init__(model)
        self.ids = self.path / "resume" / "trackers.json"
        self.names = names
        self.announce = announce
        self.trackers: dict[str, Tracker] = {}

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """As `RunFolder`; the trackers are closed at the end."""
        with super().claimed():
            try:
                yield
            finally:
                self._report(lambda tracker: tracker.close())

    def start(self, settings: Mapping[str, Setting], line: str) -> None:
        """As `RunFolder`; the trackers' runs are new ones."""
        remove(self.ids)
        super().start(settings, line)

    def record(self, settings: Mapping[str, Setting]) -> None:
        """As `RunFolder`; the trackers start, or go on."""
        super().record(settings)
        values = {name: each.value for name, each in settings.items()}
        known = self._known_ids()
        for name in self.names:
            try:
                self.trackers[name] = TRACKERS[name](self.path, values, known.get(name, ""), self.announce is None)
            except Exception as error:
                self._give_up(name, error)
        if self.trackers:
            write_text(self.ids, json_text(known | {name: each.id for name, each in self.trackers.items()}))

    def add_row(self, row: dict[str, float]) -> list[dict[str, float]]:
        """As `RunFolder`."""
        rows = super().add_row(row)
        epoch = int(row["epoch"])
        numbers = {name: value for name, value in row.items() if name != "epoch"}
        self._report(lambda tracker: tracker.add(epoch, numbers))
        return rows

    def finish(self, metrics: dict[str, Any]) -> None:
        """As `RunFolder`."""
        super().finish(metrics)
        scores = {f"{name}/{view}": value for view, each in metrics.items() for name, value in _numbers(each).items()}
        self._report(lambda tracker: tracker.finish(self._last_epoch(), scores))

    def _last_epoch(self) -> int:
        return max((int(row["epoch"]) for row in self.rows()), default=0)

    def _known_ids(self) -> dict[str, str]:
        try:
            return {str(name): str(each) for name, each in json.loads(self.ids.read_text(encoding="utf-8")).items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def _report(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                act(tracker)
            except Exception as error:
                # Whatever a tracker's network, server or disk does is no reason to lose a training.
                with contextlib.suppress(Exception):
                    self.trackers.pop(name).close()
                self._give_up(name, error)

    def _give_up(self, name: str, error: Exception) -> None:
        line = f"{name} failed, and gets nothing from here on: {type(error).__name__}: {error}"
        self.log(line)
        if self.announce is not None:
            self.announce(line)


def _numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if isinstance(value, float) and not math.isnan(value)}
