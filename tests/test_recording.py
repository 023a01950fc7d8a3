"""The recorded screen of quickstart.md shows the commands that its script runs, and loads nothing."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).parents[1] / "docs"
SVG = "{http://www.w3.org/2000/svg}"
ELSEWHERE = re.compile(r"(?:href|src)\s*=|@import|@font-face|url\((?!#)|\w+://")
"""What an SVG loads others by. The name of its own namespace is no address."""


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """docs/make_recording.py."""
    monkeypatch.syspath_prepend(str(DOCS))
    return import_module("make_recording")


def shots(svg: str) -> list[list[str]]:
    """The lines of each command's group, from top to bottom; no-break spaces as spaces."""
    found = []
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        lines: dict[float, str] = {}
        for text in group.iter(f"{SVG}text"):
            lines[float(text.attrib["y"])] = lines.get(float(text.attrib["y"]), "") + (text.text or "")
        found.append([line.replace("\xa0", " ").rstrip() for _, line in sorted(lines.items())])
    return found


def without_namespace(svg: str) -> str:
    return svg.replace('xmlns="http://www.w3.org/2000/svg"', "")


def test_the_recording_shows_the_commands_of_its_script(maker: Any) -> None:
    recorded = shots(maker.RECORDING.read_text(encoding="utf-8"))
    begins = ["".join(lines).replace(" ", "") for lines in recorded]
    commands = ["$" + shot.command.replace(" ", "") for shot in maker.SHOTS]
    assert [text[: len(command)] for text, command in zip(begins, commands, strict=True)] == commands
    assert all(len("".join(lines)) > len(shot.command) + 2 for lines, shot in zip(recorded, maker.SHOTS, strict=True))
    assert "](recording.svg)" in (DOCS / "quickstart.md").read_text()


def test_the_recording_is_small_loads_nothing_and_names_no_folder_of_a_machine(maker: Any) -> None:
    svg = maker.RECORDING.read_text(encoding="utf-8")
    assert len(svg.encode()) < 200_000
    assert ELSEWHERE.findall(without_namespace(svg)) == []
    assert re.findall(r"/(?:root|home|tmp|work|Users)\b", svg) == []
    assert "prefers-reduced-motion" in svg


@pytest.mark.parametrize(
    "line", ['<image href="a.png"/>', "@font-face { src: local(a) }", "fill: url(a.svg#b)", "https://example.org"]
)
def test_what_would_be_loaded_is_found(line: str) -> None:
    assert ELSEWHERE.search(line)
    assert not ELSEWHERE.search("clip-path: url(#a)")


def test_of_an_output_what_is_kept_is_shown_with_a_mark_for_the_rest(
    maker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maker, "SHOTS", (maker.Shot("msad a", "^AP|^next"), maker.Shot("msad b", ".")))
    long = "x" * maker.COLUMNS
    svg = maker.recording(["plan\nmore\n\x1b[1mAP\x1b[0m 1 < 2\nms 3\nnext: msad b\n", f"{long}y\n"])
    assert shots(svg) == [["$ msad a", "⋮", "AP 1 < 2", "⋮", "next: msad b"], ["$ msad b", long, "y"]]
    assert "font-weight: bold" in svg
