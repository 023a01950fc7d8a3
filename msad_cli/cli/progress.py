"""A training on the screen: its plan, its lines, and a bar, or without a terminal a plain line every half minute."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from msad_cli.cli.console import console, print_line, print_plan
from msad_cli.runs.folder import Setting
from msad_cli.system.distributed import rank
from msad_cli.text import duration
from msad_cli.training.observer import Observer
from msad_cli.training.run import Outcome
from msad_cli.training.steps.loop import Step

PLAIN_LINE_SECONDS = 30.0


class ConsoleObserver(Observer):
    """Prints what a training tells."""

    silent = False

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._said = 0.0

    def say(self, line: str) -> None:
        print_line(line)

    def plan(self, out: Path, settings: Mapping[str, Setting]) -> None:
        print_plan(f"plan of {out}", settings)

    @contextmanager
    def watching(self, total: int, done: int) -> Iterator[None]:
        self._said = time.monotonic()
        if not console.is_terminal:
            yield
            return
        columns = (BarColumn(20), TextColumn("{task.fields[status]}"), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as self._bar:
            self._bar.add_task("", total=total, completed=done, status="")
            yield
        self._bar = None

    def step(self, step: Step, line: str, seconds_left: float) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step.number, status=line)
        elif time.monotonic() - self._said >= PLAIN_LINE_SECONDS:
            self._said = time.monotonic()
            console.print(f"{line}  {duration(seconds_left)} left", soft_wrap=True)


def observer(quiet: bool) -> Observer:
    """Who watches a training: of several processes the first one speaks, unless quiet."""
    return Observer() if quiet or rank() > 0 else ConsoleObserver()


def exit_code(outcome: Outcome, observer: Observer) -> int:
    """The exit code of a training that was stopped, of which the command that goes on is said; else 0."""
    if outcome.stopped is None:
        return 0
    if not observer.silent:
        print_line(
            f"{outcome.model} holds {outcome.held}.\nGo on with:\n  {outcome.command_to_resume}\n"
            f"Or evaluate what is there and end the run, without another step:\n"
            f"  {outcome.command_to_resume} --finish"
        )
    return 128 + outcome.stopped if outcome.stopped else 0
