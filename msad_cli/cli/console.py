"""What people read: results on stdout, plans, progress and remarks on stderr."""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from msad_cli.runs.folder import Setting
from msad_cli.text import printable

if TYPE_CHECKING:
    from msad_cli.evaluation.metrics import Scores


class PrintableConsole(Console):
    """A console whose texts may hold names of files and classes, whatever these hold."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As Rich's, but nothing in a text commands the terminal."""
        super().print(*(printable(each) if isinstance(each, str) else each for each in objects), **options)


def _width(terminal: bool) -> int | None:
    # Without a terminal Rich assumes 80 columns, too few for a plan or a table of twelve numbers.
    return None if terminal or os.environ.get("COLUMNS") else 140


console = PrintableConsole(stderr=True, highlight=False, width=_width(sys.stderr.isatty()))
"""Of plans, progress and remarks."""
results = PrintableConsole(highlight=False, width=_width(sys.stdout.isatty()))
"""Of what a command was called for."""


def print_line(line: str) -> None:
    """A remark as it is, however long, whatever it holds."""
    console.print(line, markup=False, soft_wrap=True)


def print_result(line: str) -> None:
    """A line of a result as it is."""
    results.print(line, markup=False, soft_wrap=True)


def print_table(title: str, rows: Sequence[Sequence[str]]) -> None:
    """A result: a table, its first row being the head; where the screen is too narrow for it, its rows stand as
    columns."""
    rows = [[cell(each) for each in row] for row in rows]
    wide = [max((len(word) for row in rows for word in row[i].split()), default=0) + 3 for i in range(len(rows[0]))]
    if sum(wide) >= results.width:
        rows = [list(column) for column in zip(*rows, strict=True)]
    head, *others = rows
    table = Table(title=cell(title) or None, title_justify="left", header_style="bold")
    for place, name in enumerate(head):
        whole = not any(" " in row[place] for row in rows)
        table.add_column(name, justify="right" if place and whole else "left", no_wrap=whole, overflow="fold")
    for row in others:
        table.add_row(*row)
    results.print(table)


def print_plan(title: str, settings: Mapping[str, Setting]) -> None:
    """Every setting with its value and the reason for it."""
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


def announce_result(out: Path, held: str, scores: "Mapping[str, Scores]", following: str, remark: str = "") -> None:
    """The end of a training: a table of the views of what is `held`, a remark and the next command, where
    there are any."""
    print_scores(f"{out}: {held}", {view: each.numbers for view, each in scores.items()})
    if remark:
        print_line(remark)
    if following:
        print_line(f"next: {following}")
