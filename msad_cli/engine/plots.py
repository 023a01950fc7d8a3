"""The pictures of a run: losses and AP over epochs."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msad_cli.engine.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSS = "loss/"
AP = "AP/"


def plot_run(rows: list[dict[str, float]], folder: Path) -> None:
    """Draws loss.png and ap.png from the rows of results.csv into a folder."""
    for prefix, title, name, unit in ((LOSS, "loss", "loss.png", 1), (AP, "AP on the validation split", "ap.png", 100)):
        keys = list(dict.fromkeys(key for row in rows for key in row if key.startswith(prefix)))
        # A view's or a method's sum, not each of its parts: a dozen lines can't be told apart.
        columns = [key for key in keys if "/" not in key.removeprefix(prefix)]
        if columns:
            lines = {
                column.removeprefix(prefix): [(row["epoch"], unit * row[column]) for row in rows if column in row]
                for column in columns
            }
            _draw(lines, title, folder / name)


def plot_sizes(aps: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """Draws AP (from 0 to 1) over the short side of the input in pixels, a line a view (the paper's figure 4c)."""
    lines = {view: [(float(side), 100 * ap) for side, ap in sorted(of.items())] for view, of in aps.items()}
    _draw(lines, "AP on the split", path, "short side of the input, pixels")


def _draw(lines: dict[str, list[tuple[float, float]]], title: str, path: Path, below: str = "epoch") -> None:
    # The object interface needs no display and no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, MaxNLocator

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = FigureCanvasAgg(figure).figure.add_subplot()
    for label, points in lines.items():
        epochs, values = zip(*points, strict=True)
        axes.plot(epochs, values, marker="." if len(epochs) < 40 else "", label=label)
    axes.set_xlabel(below)
    places = sorted({x for points in lines.values() for x, _ in points})
    axes.xaxis.set_major_locator(FixedLocator(places) if len(places) < 12 else MaxNLocator(integer=True))
    axes.set_ylabel(title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    write_figure(figure, path)


def write_figure(figure: "Figure", path: Path) -> None:
    """Writes a figure of matplotlib as PNG, whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_bytes(path, picture.getbuffer())
