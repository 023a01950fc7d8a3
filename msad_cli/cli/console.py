"""What people read: results on stdout, plans, progress and remarks on stderr."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from msad_cli.text import printable


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


@contextmanager
def one_document(wanted: bool) -> Iterator[None]:
    """A stretch in which stdout holds one document, if that is wanted: results for people are remarks then."""
    before = results.stderr
    results.stderr = wanted or before
    try:
        yield
    finally:
        results.stderr = before


def print_line(line: str) -> None:
    """A remark as it is, however long, whatever it holds."""
    console.print(line, markup=False, soft_wrap=True)


def print_result(line: str) -> None:
    """A line of a result as it is."""
    results.print(line, markup=False, soft_wrap=True)
