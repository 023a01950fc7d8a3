"""The site: every page has its place, every link leads somewhere, and nothing is loaded from elsewhere."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LOADED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^\s\">]+")


def pages(entries: list[dict[str, Any]]) -> Iterator[str]:
    """The files of a table of contents, whose entries are a page or a list of entries each."""
    for entry in entries:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else pages(value)


def test_every_page_stands_in_the_table_of_contents_once() -> None:
    nav = sorted(pages(tomllib.loads((ROOT / "docs" / "site.toml").read_text())["project"]["nav"]))
    there = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")]
    made = "docs/reference.md"
    assert nav == sorted([made, *(str(each.relative_to(ROOT)) for each in there)])


@pytest.mark.skipif(find_spec("zensical") is None, reason="the extra docs is not installed")
def test_the_site_is_built_strictly(tmp_path: Path) -> None:
    """--strict refuses links and anchors that lead nowhere."""
    command = [sys.executable, str(ROOT / "docs" / "make_site.py"), str(tmp_path / "site")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    built = {str(file.relative_to(tmp_path / "site")): file.read_text() for file in tmp_path.rglob("*.html")}
    assert "<h1" in built["index.html"]
    reference = built["docs/reference/index.html"]
    # A keyword that `distill` has by its configuration alone, and an attribute's shape from a docstring.
    assert "cache_teacher" in reference
    assert "(D, K, 3) float32" in reference
    assert 'href="docs/quickstart/"' in built["index.html"]
    assert {name: found for name, page in built.items() if (found := LOADED.findall(page))} == {}


def test_what_is_loaded_from_elsewhere_is_found() -> None:
    assert LOADED.findall(
        '<link rel=stylesheet href="https://fonts.example/css"><script src=//x.example/y.js></script>'
    )
    assert not LOADED.findall('<a href="https://arxiv.org/abs/1"><img src="docs/chart.svg">')
