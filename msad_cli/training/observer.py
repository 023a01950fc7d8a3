"""What a training tells whoever started it, and how fast it is."""

import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from msad_cli.runs.folder import Setting
from msad_cli.system.device import Compute
from msad_cli.text import printable
from msad_cli.training.steps.loop import Step
from msad_cli.training.steps.state import grouped

STARVED, FIRST_LOOK = 0.3, 50
"""The share of its time from which on a run waits too long for data, and the steps before it is looked at."""
RECENT = 50
"""Steps by which speed and the time left go: a neighbour that comes or goes shows after these."""
WORTH_SAYING = 0.1
"""The share of waiting from which on a line mentions it."""
SECONDS_BETWEEN_LINES = 30.0


class Observer:
    """Whom a training tells what it does. This one keeps silent; that of the command line prints."""

    silent = True

    def say(self, line: str) -> None:
        """A line for people."""

    def plan(self, out: Path, settings: Mapping[str, Setting]) -> None:
        """Every setting of a run, before its first step."""

    @contextmanager
    def watching(self, total: int, done: int) -> Iterator[None]:
        """The stretch in which steps are made: `total` of them, of which `done` were made before."""
        yield

    def latencies(
        self, models: Sequence[Path], images: Sequence[Path], compute: Compute
    ) -> tuple[Mapping[str, float], str]:
        """How long models take, for the table at the end of a run, and on what machine; nothing, if nobody looks.

        Returns:
            Milliseconds an image, as `msad_cli.runs.comparison.table_rows` takes them, and the machine in words.
        """
        return {}, ""

    def step(self, step: Step, line: str, seconds_left: float) -> None:
        """A step, in words, and how long the rest will take."""


class Lines(Observer):
    """Prints what a training tells, line by line, on stderr."""

    silent = False

    def __init__(self) -> None:
        self._said = time.monotonic()

    def say(self, line: str) -> None:
        print(printable(line), file=sys.stderr)

    def plan(self, out: Path, settings: Mapping[str, Setting]) -> None:
        self.say(f"plan of {out}")
        for name, each in settings.items():
            self.say(f"  {name}  {each.value}  {each.reason or each.source}")

    def step(self, step: Step, line: str, seconds_left: float) -> None:
        if time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            self.say(f"{line}  {seconds_left / 60:.0f} min left")


class Speed:
    """Counts the steps of a run since it started or went on.

    Args:
        total: steps of the whole run.
        steps_per_epoch: of them.
    """

    def __init__(self, total: int, steps_per_epoch: int) -> None:
        self.total = total
        self.steps_per_epoch = steps_per_epoch
        self.steps, self.seconds, self.waited = 0, 1e-9, 0.0
        self.recent: deque[tuple[int, float]] = deque(maxlen=RECENT)
        self.between, self.epochs_steps, self.last = 0.0, 0, time.monotonic()

    def add(self, step: Step) -> str:
        """Counts a step in; its line for log and screen."""
        now = time.monotonic()
        if self.steps and (step.number - 1) % self.steps_per_epoch == 0:
            # What lies between the steps of two epochs: evaluation, curves, the state on the disk.
            self.between, self.epochs_steps = self.between + max(0.0, now - self.last - step.seconds), self.steps
        self.last = now
        self.recent.append((len(step.indices), step.seconds))
        self.steps, self.seconds, self.waited = self.steps + 1, self.seconds + step.seconds, self.waited + step.waited
        images, seconds = (sum(each) for each in zip(*self.recent, strict=True))
        losses = "  ".join(f"{name} {value:.3f}" for name, value in grouped(step.losses).items())
        share = self.waited / self.seconds
        wait = f"  waiting for data {share:.0%}" if share > WORTH_SAYING else ""
        return (
            f"epoch {(step.number - 1) // self.steps_per_epoch + 1}  step {step.number}/{self.total}  {losses}  "
            f"lr {step.learning_rate:.2g}  {images / max(seconds, 1e-9):.1f} images/s{wait}"
        )

    def seconds_left(self, step: int) -> float:
        """How long the steps after this one will take, by the latest ones, and what lies between epochs."""
        a_step = sum(seconds for _, seconds in self.recent) / len(self.recent)
        return (self.total - step) * (a_step + self.between / max(1, self.epochs_steps))

    def advice(self, step: int) -> str:
        """What to do about waiting for data, after the first steps and after each epoch; empty where it is short."""
        due = self.steps == FIRST_LOOK or (self.steps > FIRST_LOOK and step % self.steps_per_epoch == 0)
        if not due or self.waited <= STARVED * self.seconds:
            return ""
        return (
            f"more than {STARVED:.0%} of the time is spent waiting for data: a larger --workers N, or --cache ram, "
            "which keeps decoded images in memory, may help; a run that was stopped takes both with --resume"
        )
