"""Tables that fit the screen, however narrow: every table of every command is printed here."""

from collections.abc import Sequence
from textwrap import wrap

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from msad_cli.cli.console import PrintableConsole, results
from msad_cli.text import printable

READABLE = 20
"""Columns of the screen that a cell of several words has at least, before it goes on in a further line."""
FIRST, OTHER = 2, 3
"""Parts of a screen, of which the first column and another one take one at most for the sake of a long word."""
GAP = 2
"""Blanks between two columns."""


def print_table(title: str, rows: Sequence[Sequence[str]], to: PrintableConsole = results) -> None:
    """A table, its first row being the head, with an empty line below.

    Texts go on in a further line at a word. Columns that the screen has no room for follow in another table below, with
    the first column before them: what matters most stands first, therefore. Nothing is cut.
    """
    columns = [[printable(each) for each in column] for column in zip(*rows, strict=True)]
    if title:
        to.print(Text(printable(title), style="bold"))
    for places, widths in _parts(columns, to.width):
        to.print(_table([columns[place] for place in places], widths))
        to.print()


def print_beside(head: str, text: str, to: PrintableConsole = results) -> None:
    """A text behind its head, whose further lines stand below its first; a long word stays whole."""
    blank = " " * len(head)
    for line in wrap(
        printable(text),
        to.width,
        initial_indent=head,
        subsequent_indent=blank,
        break_long_words=False,
        break_on_hyphens=False,
    ):
        to.print(line, markup=False, soft_wrap=True)


def _parts(columns: Sequence[Sequence[str]], screen: int) -> list[tuple[list[int], list[int]]]:
    """The columns of each table, by place, and their widths."""
    whole = [max(map(cell_len, each)) for each in columns]
    least = [min(_least(each), screen // (OTHER if place else FIRST)) for place, each in enumerate(columns)]
    room = screen - least[0] - GAP
    groups: list[list[int]] = [[]]
    for place in range(1, len(columns)):
        taken = sum(least[each] + GAP for each in groups[-1])
        if groups[-1] and taken + least[place] > room:
            groups.append([])
        groups[-1].append(place)
    parts = []
    for places in groups:
        widths = [least[place] for place in (0, *places)]
        left = screen - sum(widths) - GAP * len(places)
        for at, place in enumerate((0, *places)):
            more = max(0, min(left, whole[place] - widths[at]))
            widths[at], left = widths[at] + more, left - more
        parts.append(([0, *places], widths))
    return parts


def _least(column: Sequence[str]) -> int:
    """The width below which a column is hard to read."""
    words = max((cell_len(word) for each in column for word in each.split()), default=0)
    several = any(" " in each for each in column[1:])
    return max(words, min(READABLE, max(map(cell_len, column)))) if several else words


def _table(columns: Sequence[Sequence[str]], widths: Sequence[int]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for place, (column, width) in enumerate(zip(columns, widths, strict=True)):
        right = place > 0 and all(_is_number(each) for each in column[1:])
        table.add_column(Text(column[0]), justify="right" if right else "left", width=width, overflow="fold")
    for row in zip(*(each[1:] for each in columns), strict=True):
        table.add_row(*map(Text, row))
    return table


def _is_number(text: str) -> bool:
    return text in ("", "-") or (text.lstrip("-−+")[:1].isdigit() and " " not in text)
