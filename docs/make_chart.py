"""Draws chart.svg, the README's chart of AP over latency, from a table of results.md: `python docs/make_chart.py`.

Numbers stand in results.md alone.
The chart brings its own background, light or dark as the reader's system is set, so that it reads on any page.
"""

from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parent / "results.md"
CHART = Path(__file__).parent / "chart.svg"
TABLE = "### RTMDet on blood cells"
"""The heading over the table; its columns AP and ms are taken."""
WIDTH, HEIGHT = 480, 400
LEFT, TOP, RIGHT, BOTTOM = 58, 72, 462, 342
"""Pixels of the drawing's area."""
UNIT = "milliseconds an image, one CPU thread, onnxruntime"
MOST_MS, AP_RANGE = 12, (55, 65)
STYLE = """
.paper { fill: #ffffff } .grid { stroke: #d1d9e0 } .msad { fill: #0a66c2 }
circle.plain { fill: #6e7781 } circle.YOLO11n { fill: #9a6700 }
text { fill: #1f2328; font: 16px system-ui, sans-serif }
.title, .plain, .YOLO11n, .msad { font-weight: 600 } .title { font-size: 18px }
@media (prefers-color-scheme: dark) {
.paper { fill: #0d1117 } text { fill: #f0f6fc } .grid { stroke: #3d444d }
circle.plain { fill: #9198a1 } circle.YOLO11n { fill: #d29922 } .msad { fill: #58a6ff }
}"""


class Shown(NamedTuple):
    """A model of the chart: its row, what it is, and where its words stand beside its mark."""

    row: str
    kind: str
    sees: str
    right: int
    below: int
    anchor: str


MODELS = (
    Shown("plain", "plain", "160 × 212 pixels", 14, -9, "start"),
    Shown("plain, the large image", "plain", "256 × 340 pixels", -14, 2, "end"),
    Shown("YOLO11n, trained at 192", "YOLO11n", "160 × 192 pixels", 14, 2, "start"),
    Shown("aligned alone", "msad", "128 × 170 pixels", -14, -8, "end"),
)


class Mark(NamedTuple):
    """A model with its numbers: milliseconds an image, and AP."""

    shown: Shown
    ms: float
    ap: float


def cell(page: str, heading: str, label: str, column: str) -> str:
    """A cell of the first table under a heading of results.md, without the marks of bold type.

    Raises:
        ValueError: no such heading, or no such row or column under it.
    """
    _, found, below = page.partition(f"\n{heading}\n")
    lines = [line for line in below.split("\n#")[0].splitlines() if line.startswith("|")]
    rows = [[each.strip(" *") for each in line.strip("|").split("|")] for line in lines]
    for row in rows:
        if row[0] == label and column in rows[0]:
            return row[rows[0].index(column)]
    missing = f"no {column!r} of {label!r} under {heading!r}" if found else f"no {heading!r}"
    raise ValueError(f"results.md: {missing}")


def marks_of(page: str) -> list[Mark]:
    """All models of the chart with their numbers."""
    return [
        Mark(each, float(cell(page, TABLE, each.row, "ms")), float(cell(page, TABLE, each.row, "AP")))
        for each in MODELS
    ]


def across(ms: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * ms / MOST_MS, 1)


def down(ap: float) -> float:
    least, most = AP_RANGE
    return round(BOTTOM - (BOTTOM - TOP) * (ap - least) / (most - least), 1)


def axes() -> list[str]:
    lines = []
    for ap in range(AP_RANGE[0], AP_RANGE[1] + 1, 5):
        lines.append(f'<path class="grid" d="M{LEFT} {down(ap)}H{RIGHT}"/>')
        lines.append(f'<text x="{LEFT - 10}" y="{down(ap) + 5}" text-anchor="end">{ap}</text>')
    for ms in range(0, MOST_MS + 1, 2):
        lines.append(f'<path class="grid" d="M{across(ms)} {BOTTOM}v6"/>')
        lines.append(f'<text x="{across(ms)}" y="{BOTTOM + 24}" text-anchor="middle">{ms}</text>')
    return lines


def drawn(mark: Mark) -> list[str]:
    """A mark, and two lines of words beside it."""
    shown, x, y = mark.shown, across(mark.ms), down(mark.ap)
    place = f'x="{x + shown.right}" text-anchor="{shown.anchor}"'
    return [
        f'<circle class="{shown.kind}" cx="{x}" cy="{y}" r="8"/>',
        f'<text class="{shown.kind}" {place} y="{y + shown.below:g}">{shown.kind} {mark.ap}</text>',
        f'<text {place} y="{y + shown.below + 20:g}">{shown.sees}</text>',
    ]


def chart(page: str) -> str:
    """The SVG that results.md gives."""
    marks = marks_of(page)
    told = "; ".join(f"{each.shown.kind}, {each.shown.sees}: {each.ap} AP, {each.ms} ms" for each in marks)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>AP over latency. {told}</title>",
        f"<style>{STYLE}\n</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="12"/>',
        '<text class="title" x="18" y="30">Blood cells (BCCD), RTMDet from scratch</text>',
        '<text x="18" y="54">AP</text>',
        f'<text x="{RIGHT}" y="{HEIGHT - 12}" text-anchor="end">{UNIT}</text>',
        *axes(),
        *(line for mark in marks for line in drawn(mark)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    CHART.write_text(chart(PAGE.read_text()))
