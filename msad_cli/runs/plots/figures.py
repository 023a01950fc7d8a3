"""What all plots share: figures, legends, names, and how a figure becomes a file or a part of a page."""

import io
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msad_cli.system.files import write_bytes
from msad_cli.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_NAME = 24
"""Characters of a class or a model in a plot."""
BLACK = re.compile(r"(?<=fill: )#000000|(?<=stroke: )#000000")
UNWANTED = re.compile(
    r'<metadata>.*?</metadata>|<style.*?</style>|(?<=<g) id="[^"]*"| xmlns(:xlink)?="[^"]*"', re.DOTALL
)
"""Addresses that nobody asks for, a style of the whole page, and names that two figures of a page would share."""


def new_figure(width: float, height: float, panels: int = 1) -> tuple["Figure", list["Axes"]]:
    """A figure of so many inches and its panels, side by side."""
    # The object interface needs no display and no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = FigureCanvasAgg(Figure(figsize=(width, height), layout="constrained")).figure
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def legend_beside(axes: "Axes", *others: "Axes") -> None:
    """A legend right of a panel, where it covers nothing, of all that is drawn in it and in others over it."""
    entries = [each for of in (axes, *others) for each in zip(*of.get_legend_handles_labels(), strict=True)]
    right = 1.12 if others else 1.01  # the others' numbers stand at the right border
    handles, labels = zip(*entries, strict=True) if entries else ((), ())
    axes.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(right, 1), borderaxespad=0, fontsize="small", frameon=False
    )


def shown(name: str, longest: int = LONGEST_NAME) -> str:
    """A user's name as matplotlib takes it: not too long, no formula, and in the legend whatever it begins with."""
    text = printable(name).replace("\n", " ").replace("\t", " ")
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def titled(name: str, what: str) -> str:
    """A plot's title: which model, and what is shown of it; the latter alone where no model is named."""
    return f"{shown(name)}: {what}" if name else what


def write_figure(figure: "Figure", path: Path) -> None:
    """Writes a figure of matplotlib as PNG, whole or not at all."""
    written = io.BytesIO()
    _save(figure, written, "png", dpi=120)
    write_bytes(path, written.getbuffer())


def svg_element(figure: "Figure", salt: str) -> str:
    """A figure as `<svg>` within a page: its texts are texts, and what is black has the colour of the page's text.

    Args:
        salt: another one for each figure of a page; names inside are made of it.
    """
    from matplotlib import rc_context

    written = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        _save(figure, written, "svg", transparent=True)
    element = UNWANTED.sub("", written.getvalue())
    return BLACK.sub("currentColor", element[element.index("<svg") :]).strip()


def _save(figure: "Figure", to: io.BytesIO | io.StringIO, kind: str, **options: Any) -> None:
    with warnings.catch_warnings():
        # Its font has no Chinese, among others; in a PNG an empty box stands for what it lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(to, format=kind, **options)
