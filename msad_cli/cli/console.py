"""What people read, on stderr; results for programs go to stdout."""

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from msad_cli.runs.folder import Setting, json_text
from msad_cli.text import printable

if TYPE_CHECKING:
    from msad_cli.evaluation.metrics import Scores
    from msad_cli.training.loop import Step


class PrintableConsole(Console):
    """A console whose texts may hold names of files and classes, whatever these hold."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As Rich's, but nothing in a text commands the terminal."""
        super().print(*(printable(each) if isinstance(each, str) else each for each in objects), **options)


# Without a terminal Rich assumes 80 columns, too few for a plan or a table of twelve numbers.
console = PrintableConsole(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 140)

PLAIN_LINE_SECONDS = 30.0
STARVED, FIRST_LOOK = 0.3, 50
"""The share of its time from which on a run waits too long for data, and the steps before it is looked at."""


def print_line(line: str) -> None:
    """A line as it is, however long, whatever it holds."""
    console.print(line, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """A result on stdout; NaN becomes null."""
    sys.stdout.write(json_text(value))


def print_table(title: str, rows: Sequence[Sequence[str]]) -> None:
    """A table, its first row being the head; where the screen is too narrow for it, its rows stand as columns."""
    rows = [[cell(each) for each in row] for row in rows]
    wide = [max((len(word) for row in rows for word in row[i].split()), default=0) + 3 for i in range(len(rows[0]))]
    if sum(wide) >= console.width:
        rows = [list(column) for column in zip(*rows, strict=True)]
    head, *others = rows
    table = Table(title=cell(title) or None, title_justify="left", header_style="bold")
    for place, name in enumerate(head):
        whole = not any(" " in row[place] for row in rows)
        table.add_column(name, justify="right" if place and whole else "left", no_wrap=whole, overflow="fold")
    for row in others:
        table.add_row(*row)
    console.print(table)


def print_plan(title: str, settings: Mapping[str, Setting], quiet: bool) -> None:
    """Every setting with its value and the reason for it, unless quiet."""
    if quiet:
        return
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for column in ("setting", "value", "why"):
        table.add_column(column, overflow="fold")
    for name, setting in settings.items():
        table.add_row(name, cell(str(setting.value)), cell(setting.reason or setting.source))
    console.print(table)


def percent(value: float | None) -> str:
    """An AP as COCO papers print it, or `-` where nothing is known."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def cell(text: str) -> str:
    """A text as a table takes it: what looks like Rich's markup stands for itself."""
    return escape(printable(text))


def print_scores(title: str, rows: Mapping[str, Mapping[str, float | None]], first: str = "view") -> None:
    """Numbers from 0 to 1, in percent: a line for each row and kind (boxes, masks, keypoints).

    Kinds with the same numbers share a table; keypoints have others than boxes.
    """
    tables: dict[tuple[str, ...], dict[str, dict[str, float | None]]] = {}
    split = {label: _by_kind(numbers) for label, numbers in rows.items()}
    for kind in next(iter(split.values()), {}):
        columns = tuple(next(iter(split.values()))[kind])
        several = any(len(each) > 1 for each in split.values())
        lines = {f"{label}, {kind}" if several else label: each.get(kind, {}) for label, each in split.items()}
        tables.setdefault(columns, {}).update(lines)
    for columns, lines in tables.items():
        cells = ([label, *(percent(numbers.get(name)) for name in columns)] for label, numbers in lines.items())
        print_table(title, [[first, *columns], *cells])


def _by_kind(numbers: Mapping[str, float | None]) -> dict[str, dict[str, float | None]]:
    kinds: dict[str, dict[str, float | None]] = {}
    for name, value in numbers.items():
        before, separator, number = name.rpartition("_")
        kinds.setdefault(f"{before}s" if separator else "boxes", {})[number] = value
    return kinds


def announce_result(out: Path, scores: "Mapping[str, Scores]", following: str) -> None:
    """The end of a training: a table of its views, and the next command."""
    print_scores(str(out), {view: each.numbers for view, each in scores.items()})
    print_line(f"next: {following}")


def announce_stop(step: int, out: Path, command: str) -> None:
    """What to type to go on."""
    print_line(f"{out} is not written yet after step {step}. Go on with:\n  {command}")


class Reporter:
    """Shows the progress of a run: a bar on a terminal, else a plain line every half minute."""

    def __init__(self, total: int, steps_per_epoch: int, done: int, progress: Progress | None) -> None:
        self.total = total
        self.steps_per_epoch = steps_per_epoch
        self.progress = progress
        self.task = progress.add_task("", total=total, completed=done, status="") if progress else None
        self.printed = time.monotonic()
        self.steps, self.images, self.seconds, self.waited = 0, 0, 1e-9, 0.0

    def show(self, step: "Step") -> str:
        """Shows a step; returns its line for the log."""
        from msad_cli.training.state import grouped

        self.images, self.seconds = self.images + len(step.indices), self.seconds + step.seconds
        self.steps, self.waited = self.steps + 1, self.waited + step.waited
        losses = "  ".join(f"{name} {value:.3f}" for name, value in grouped(step.losses).items())
        wait = f"  waiting for data {self.waited / self.seconds:.0%}" if self.waited > 0.1 * self.seconds else ""
        line = (
            f"epoch {(step.number - 1) // self.steps_per_epoch + 1}  step {step.number}/{self.total}  {losses}  "
            f"lr {step.learning_rate:.2g}  {self.images / self.seconds:.1f} images/s{wait}"
        )
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=step.number, status=line)
        elif time.monotonic() - self.printed >= PLAIN_LINE_SECONDS:
            self.printed = time.monotonic()
            left = (self.total - step.number) * self.seconds / self.steps
            console.print(f"{line}  {left / 60:.0f} min left", soft_wrap=True)
        return line

    def advice(self, step: int) -> str:
        """What to do about waiting for data, after the first steps and after each epoch; empty where it is short."""
        due = self.steps == FIRST_LOOK or (self.steps > FIRST_LOOK and step % self.steps_per_epoch == 0)
        if not due or self.waited <= STARVED * self.seconds:
            return ""
        return (
            f"more than {STARVED:.0%} of the time is spent waiting for data: a larger --workers N, or --cache ram, "
            "which keeps decoded images in memory, may help; a run that was stopped takes both with --resume"
        )


@contextmanager
def reporting(total: int, steps_per_epoch: int, done: int, quiet: bool) -> Iterator[Reporter]:
    """A reporter, its bar being drawn as long as the context lives."""
    if quiet or not console.is_terminal:
        yield Reporter(total, steps_per_epoch, done, None)
        return
    columns = (BarColumn(20), TextColumn("{task.fields[status]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield Reporter(total, steps_per_epoch, done, progress)
