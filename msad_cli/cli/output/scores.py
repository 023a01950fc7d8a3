"""COCO's numbers, for people: in percent, a table for each kind."""

from collections.abc import Mapping

from msad_cli.cli.output.tables import print_table
from msad_cli.text import percent


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
