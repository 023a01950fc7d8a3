"""Plots over epochs, losses and AP, of one run and of what stands beside it; and AP over the size of the input."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msad_cli.models.views import view_of_k
from msad_cli.runs.members import Member, Numbers
from msad_cli.runs.plots.figures import legend_beside, new_figure, shown, titled, write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSS = "loss/"
VALIDATION_LOSS = "val_loss/"
"""Before the view that it is of: the mean of an image of the validation split, detection losses alone."""
KEPT = "kept"
"""The column with the epoch whose weights the model file holds."""
APS = {"AP/": "boxes", "mask_AP/": "masks", "keypoint_AP/": "keypoints"}
"""What a view's AP is of, by what stands before the view in the columns of results.csv."""
LONGEST_LABEL = 40
"""Characters of a model and its view."""


@dataclass(frozen=True)
class Line:
    """A line of a plot over epochs or sizes.

    Attributes:
        points: places and values, in the plot's units; a level across the whole plot is a value without a place, NaN.
        beside: whether it is another model's.
    """

    label: str
    points: Sequence[tuple[float, float]]
    beside: bool = False


def plot_epochs(name: str, rows: Sequence[Numbers], folder: Path, beside: Sequence[Member] = ()) -> list[Path]:
    """Draws loss.png and ap.png of a model's rows of results.csv into a folder, as far as there is anything to draw."""
    drawn = []
    for file, draw in epoch_drawings(name, rows, beside).items():
        write_figure(draw(), folder / f"{file}.png")
        drawn.append(folder / f"{file}.png")
    return drawn


def epoch_drawings(
    name: str, rows: Sequence[Numbers], beside: Sequence[Member] = ()
) -> "dict[str, Callable[[], Figure]]":
    """What draws `loss` and `ap`, as far as there is anything to draw.

    Args:
        name: the model's; empty where the models beside it are all there is.
        beside: models whose AP and validation loss are drawn in the same plots, by their own view; dashed, where there
            is one that they are beside.
    """
    plots = {
        "loss": (_losses(rows, beside), "loss"),
        "ap": (_aps(name, rows, beside), "AP on the validation split"),
    }
    kept = rows[-1].get(KEPT) if rows else None
    return {
        file: partial(_draw, lines, titled(name, what), what, kept=kept)
        for file, (lines, what) in plots.items()
        if lines
    }


def _losses(rows: Sequence[Numbers], beside: Sequence[Member]) -> list[Line]:
    columns = _columns(rows)
    # A view's or a method's sum, not each of its parts: a dozen lines can't be told apart.
    sums = [each.removeprefix(LOSS) for each in columns if each.startswith(LOSS) and each.count("/") == 1]
    ks = [int(each[1:]) for each in sums if re.fullmatch(r"k\d", each)]
    lines = [
        Line(view_of_k(int(each[1:]), ks) if re.fullmatch(r"k\d", each) else each, _points(rows, LOSS + each))
        for each in sums
    ]
    lines += [
        Line(f"validation, {each.removeprefix(VALIDATION_LOSS)}", _points(rows, each))
        for each in columns
        if each.startswith(VALIDATION_LOSS)
    ]
    others = ((each, _points(each.rows, VALIDATION_LOSS + each.view)) for each in beside)
    return [*lines, *(Line(f"validation, {each.label}", points, bool(rows)) for each, points in others if points)]


def _aps(name: str, rows: Sequence[Numbers], beside: Sequence[Member]) -> list[Line]:
    columns = dict.fromkeys((*_columns(rows), *(f"{number}/{each.view}" for each in beside for number in each.numbers)))
    kinds = [prefix for prefix in APS if any(each.startswith(prefix) for each in columns)]
    lines = []
    for prefix in kinds:
        kind = f", {APS[prefix]}" if len(kinds) > 1 else ""
        own = [each for each in _columns(rows) if each.startswith(prefix)]
        mine = f"{name}, " if beside else ""
        lines += [Line(mine + each.removeprefix(prefix) + kind, _points(rows, each, 100)) for each in own]
        for each in beside:
            points = _points(each.rows, prefix + each.view, 100)
            known = each.numbers.get(prefix.removesuffix("/"), math.nan)
            if points:
                lines.append(Line(each.label + kind, points, bool(rows)))
            elif math.isfinite(known):
                level = [(math.nan, 100 * known)]
                lines.append(Line(f"{each.label}{kind} (its file)", level, bool(rows)))
    return lines


def plot_sizes(name: str, aps: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """Draws AP (from 0 to 1) over the short side of the input in pixels, a line a view (the paper's figure 4c)."""
    lines = [Line(view, [(float(side), 100 * ap) for side, ap in sorted(of.items())]) for view, of in aps.items()]
    title = titled(name, "AP over the size of the input")
    write_figure(_draw(lines, title, "AP on the split", "short side of the input, pixels"), path)


def _columns(rows: Sequence[Numbers]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _points(rows: Sequence[Numbers], column: str, unit: float = 1) -> list[tuple[float, float]]:
    return [(row["epoch"], unit * row[column]) for row in rows if math.isfinite(row.get(column, math.nan))]


def _draw(lines: Sequence[Line], title: str, upwards: str, below: str = "epoch", kept: float | None = None) -> "Figure":
    """Draws lines over epochs or sides; `kept` is the epoch that is the model."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    figure, (axes,) = new_figure(8, 4.8)
    for number, line in enumerate(lines):
        style: dict[str, Any] = {"color": f"C{number % 10}", "linestyle": "--" if line.beside else "-"}
        label = shown(line.label, LONGEST_LABEL)
        places, values = zip(*line.points, strict=True)
        if math.isnan(places[0]):
            axes.axhline(values[0], label=label, **style)
        else:
            axes.plot(places, values, marker="." if len(places) < 40 else "", label=label, **style)
    if kept is not None:
        axes.axvline(kept, color="gray", linestyle=":", label=f"the model: {kept:g}")
    axes.set_xlabel(below)
    every = sorted({x for line in lines for x, _ in line.points if not math.isnan(x)})
    axes.xaxis.set_major_locator(FixedLocator(every) if len(every) < 12 else MaxNLocator(integer=True))
    axes.set(title=title, ylabel=upwards)
    # Nothing but zeros would have a scale of hundredths.
    axes.set_ylim(0, 1.05 * max((y for line in lines for _, y in line.points), default=0) or 1)
    axes.grid(alpha=0.3)
    legend_beside(axes)
    return figure
