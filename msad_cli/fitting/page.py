"""report.html of a fit: verdict, candidates, curves and commands on one page that needs no other file."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

CURVES = ("ap.png", "loss.png")
"""Of a training's plots, those that are shown."""
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}th,td{padding:.2rem .6rem;text-align:left;border-bottom:1px solid #ccc}"
    "pre{background:#f4f4f4;padding:1rem;overflow-x:auto}img{max-width:48%}.chosen{font-weight:bold}"
)


def page(
    verdict: str,
    rows: Sequence[Sequence[str]],
    chosen: Sequence[int],
    remarks: Sequence[str],
    commands: Sequence[str],
    plots: Mapping[str, Path],
) -> str:
    """The page.

    Args:
        rows: the table of candidates, its first row being the head.
        chosen: places of rows that were taken, from 1.
        remarks: lines below it: how it was measured, and why it was decided so.
        plots: by name of a model, the folder of its training's plots.
    """
    head, *others = rows
    body = [
        _row("th", head),
        *(_row("td", row, ' class="chosen"' * (place in chosen)) for place, row in enumerate(others, start=1)),
    ]
    parts = [
        f"<h1>msad fit</h1><p><strong>{escape(verdict)}</strong></p>",
        f"<h2>Candidates</h2><table>{''.join(body)}</table>",
        *(f"<p>{escape(each)}</p>" for each in remarks),
        *(_curves(name, folder) for name, folder in plots.items()),
        f"<h2>Commands</h2><pre>{escape(chr(10).join(commands))}</pre>",
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>msad fit</title><style>{STYLE}</style>'
        f"</head><body>{''.join(parts)}</body></html>\n"
    )


def _row(tag: str, cells: Sequence[str], of_row: str = "") -> str:
    return f"<tr{of_row}>{''.join(f'<{tag}>{escape(each)}</{tag}>' for each in cells)}</tr>"


def _curves(name: str, folder: Path) -> str:
    files = [folder / each for each in CURVES if (folder / each).is_file()]
    shown = [f'<img alt="{escape(name)}: {each.stem}" src="{_inside(each)}">' for each in files]
    return f"<h2>{escape(name)}</h2>{''.join(shown)}" if shown else ""


def _inside(image: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(image.read_bytes()).decode()}"
