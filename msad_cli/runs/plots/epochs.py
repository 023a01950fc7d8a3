"""Plots of a run: losses and AP over epochs, and what all plots share."""

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msad_cli.system.files import write_bytes
from msad_cli.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOSS = "loss/"
VALIDATION_LOSS = "val_loss/"
"""Before the view that it is of: the mean of an image of the validation split, detection losses alone."""
KEPT = "kept"
"""The column with the epoch whose weights the model file holds."""
APS = {"AP/": "boxes", "mask_AP/": "masks", "keypoint_AP/": "keypoints"}
"""What a view's AP is of, by what stands before the view in the columns of results.csv."""
LONGEST_NAME = 24
"""Characters of a class in a plot."""


def plot_epochs(rows: Sequence[Mapping[str, float]], folder: Path) -> list[Path]:
    """Draws loss.png and ap.png from the rows of results.csv into a folder, as far as these have anything to draw."""
    names = dict.fromkeys(name for row in rows for name in row)
    # A view's or a method's sum, not each of its parts: a dozen lines can't be told apart.
    losses = {each: each.removeprefix(LOSS) for each in names if each.startswith(LOSS) and each.count("/") == 1}
    losses |= {
        each: f"validation, {each.removeprefix(VALIDATION_LOSS)}" for each in names if each.startswith(VALIDATION_LOSS)
    }
    kinds = [prefix for prefix in APS if any(each.startswith(prefix) for each in names)]
    aps = {
        each: each.removeprefix(prefix) + (f", {APS[prefix]}" if len(kinds) > 1 else "")
        for prefix in kinds
        for each in names
        if each.startswith(prefix)
    }
    drawn = []
    for columns, unit, title, name in (
        (losses, 1, "loss", "loss.png"),
        (aps, 100, "AP on the validation split", "ap.png"),
    ):
        lines = {
            label: [(row["epoch"], unit * row[column]) for row in rows if column in row]
            for column, label in columns.items()
        }
        if lines:
            _draw(lines, title, folder / name, kept=rows[-1].get(KEPT))
            drawn.append(folder / name)
    return drawn


def plot_sizes(aps: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """Draws AP (from 0 to 1) over the short side of the input in pixels, a line a view (the paper's figure 4c)."""
    lines = {view: [(float(side), 100 * ap) for side, ap in sorted(of.items())] for view, of in aps.items()}
    _draw(lines, "AP on the split", path, "short side of the input, pixels")


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


def write_figure(figure: "Figure", path: Path) -> None:
    """Writes a figure of matplotlib as PNG, whole or not at all."""
    written = io.BytesIO()
    with warnings.catch_warnings():
        # Its font has no Chinese, among others; an empty box stands for what it lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(written, format="png", dpi=120)
    write_bytes(path, written.getbuffer())


def _draw(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    path: Path,
    below: str = "epoch",
    kept: float | None = None,
) -> None:
    """Draws lines over epochs or sides; `kept` is the epoch that is the model."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    figure, (axes,) = new_figure(8, 4.8)
    for label, points in lines.items():
        places, values = zip(*points, strict=True)
        axes.plot(places, values, marker="." if len(places) < 40 else "", label=label)
    if kept is not None:
        axes.axvline(kept, color="gray", linestyle=":", label=f"the model: {kept:g}")
    axes.set_xlabel(below)
    every = sorted({x for points in lines.values() for x, _ in points})
    axes.xaxis.set_major_locator(FixedLocator(every) if len(every) < 12 else MaxNLocator(integer=True))
    axes.set_ylabel(title)
    # Nothing but zeros would have a scale of hundredths.
    axes.set_ylim(0, None if any(y > 0 for points in lines.values() for _, y in points) else 1)
    axes.grid(alpha=0.3)
    legend_beside(axes)
    write_figure(figure, path)
