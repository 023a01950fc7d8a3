"""A row of a table is a file of its room: none is forgotten, and none is named twice."""

import importlib
import pkgutil
from types import ModuleType

from msad_cli.data import layouts, writers
from msad_cli.data.layouts.table import LAYOUTS
from msad_cli.data.writers.table import WRITERS


def rows(room: ModuleType, name: str) -> list[object]:
    """What the files of a room call by this name, of each file its own."""
    files = [importlib.import_module(f"{room.__name__}.{each.name}") for each in pkgutil.iter_modules(room.__path__)]
    return [vars(file)[name] for file in files if name in vars(file)]


def test_every_layout_is_in_the_table() -> None:
    assert sorted(map(repr, LAYOUTS)) == sorted(map(repr, rows(layouts, "LAYOUT")))
    assert len({each.sign for each in LAYOUTS}) == len(LAYOUTS) > 5


def test_every_writer_is_in_the_table() -> None:
    assert sorted(map(repr, WRITERS.values())) == sorted(map(repr, rows(writers, "write")))
