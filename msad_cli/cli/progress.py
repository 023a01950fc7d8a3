"""A training on the screen: its plan, its lines, and a bar, or without a terminal a plain line every half minute."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from msad_cli.cli.console import console, print_line
from msad_cli.cli.output.tables import print_table
from msad_cli.errors import MsadError
from msad_cli.runs.folder import Setting
from msad_cli.system.device import Compute
from msad_cli.system.distributed import rank
from msad_cli.text import duration, folded
from msad_cli.training.config import TrainingConfig
from msad_cli.training.observer import Observer
from msad_cli.training.run import Outcome
from msad_cli.training.steps.loop import Step

PLAIN_LINE_SECONDS = 30.0
BAR, TIME = 12, 9
"""Columns of the bar, and of the time left with the blanks around it."""


class ConsoleObserver(Observer):
    """Prints what a training tells.

    Args:
        whole_plan: plain defaults are listed, and not only counted.
    """

    silent = False

    def __init__(self, whole_plan: bool = False) -> None:
        self._whole_plan = whole_plan
        self._bar: Progress | None = None
        self._said = 0.0

    def say(self, line: str) -> None:
        print_line(line)

    def plan(self, out: Path, settings: Mapping[str, Setting]) -> None:
        print_plan(f"plan of {out}", settings, self._whole_plan)

    @contextmanager
    def watching(self, total: int, done: int) -> Iterator[None]:
        self._said = time.monotonic()
        if not console.is_terminal:
            yield
            return
        # What a narrow screen has no room for goes on in a further line: the time left stands before it.
        columns = (BarColumn(BAR), TimeRemainingColumn(), TextColumn("{task.fields[status]}"))
        with Progress(*columns, console=console, transient=True) as self._bar:
            self._bar.add_task("", total=total, completed=done, status="")
            yield
        self._bar = None

    def latencies(
        self, models: Sequence[Path], images: Sequence[Path], compute: Compute
    ) -> tuple[Mapping[str, float], str]:
        from msad_cli.cli.commands.bench import machine_in_words, measure, medians

        try:
            measured = measure(models, [str(each) for each in images], len(images), compute, view="all")
        except (MsadError, RuntimeError) as error:  # the model is written, whatever became of the others
            print_line(f"latencies are not measured: {error}")
            return {}, ""
        return medians(measured), machine_in_words(compute)

    def step(self, step: Step, line: str, seconds_left: float) -> None:
        if self._bar is not None:
            status = folded(line, console.width - BAR - TIME)
            self._bar.update(self._bar.task_ids[0], completed=step.number, status=status)
        elif time.monotonic() - self._said >= PLAIN_LINE_SECONDS:
            self._said = time.monotonic()
            console.print(f"{line}  {duration(seconds_left)} left", soft_wrap=True)


def print_plan(title: str, settings: Mapping[str, Setting], whole: bool) -> None:
    """Settings with their values and reasons: those that were typed or computed, and all of a `whole` plan."""
    shown = {name: each for name, each in settings.items() if whole or each.source != "default"}
    rows = [(name, str(each.value), each.reason or each.source) for name, each in shown.items()]
    print_table(title, [("setting", "value", "why"), *rows], console)
    if rest := len(settings) - len(shown):
        print_line(f"and {rest} {'default' if rest == 1 else 'defaults'} (--dry-run shows all)")


def observer(config: TrainingConfig) -> Observer:
    """Who watches a training: of several processes the first one speaks, unless it is to be quiet."""
    return Observer() if config.quiet or rank() > 0 else ConsoleObserver(whole_plan=config.dry_run)


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
