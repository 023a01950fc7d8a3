"""Plots of what a model finds: precision and recall, F1, confusion, sizes of objects, weights of a fusion."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from msad_cli.evaluation.curves import STEPS
from msad_cli.models.views import view_in_full
from msad_cli.runs.plots.figures import legend_beside, new_figure, shown, titled
from msad_cli.runs.run_curves import SIZE_EDGES, RunCurves, shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COCO_BORDERS = (32, 96)
"""Pixels: between small, medium and large objects."""
MOST_NUMBERED = 15
"""Classes up to which every cell of a confusion matrix has room for its number."""
Draw = Callable[[RunCurves, str], "Figure"]
"""Of a model's curves and its name."""


def drawings(curves: RunCurves) -> dict[str, Draw]:
    """What there is to draw, by the name of the file without its suffix."""
    always: dict[str, Draw] = {
        "pr": plot_precision,
        "f1": plot_f1,
        "confusion": plot_confusion,
        "sizes": plot_object_sizes,
    }
    return always if curves.fusion is None else always | {"fusion": plot_fusion}


def plot_precision(curves: RunCurves, name: str) -> "Figure":
    """Precision over recall: a panel for each kind, and in it the classes with the most objects."""
    kinds = curves.precision
    figure, panels = new_figure(1 + 5.5 * len(kinds), 4.8, len(kinds))
    for axes, (kind, curve) in zip(panels, kinds.items(), strict=True):
        measure = "OKS" if kind == "keypoints" else "IoU"
        axes.plot(STEPS, curve.at50, color="black", linewidth=2.5, label=f"all classes, {measure} 0.5")
        axes.plot(STEPS, curve.at75, color="black", linewidth=1.5, linestyle="--", label=f"all classes, {measure} 0.75")
        for of, line in curve.by_class.items():
            axes.plot(STEPS, line, linewidth=1, label=f"{shown(of)}, 0.5")
        axes.set(title=_title(curves, name, "precision over recall", kind), xlabel="recall", ylabel="precision")
        _shares(axes, "xy")
        legend_beside(axes)
    return figure


def plot_f1(curves: RunCurves, name: str) -> "Figure":
    """Precision, recall and F1 of all boxes over the least score that counts, the best F1 being marked."""
    figure, (axes,) = new_figure(8, 4.8)
    curve = curves.over_score
    axes.plot(STEPS, curve.precision, linewidth=1, label="precision")
    axes.plot(STEPS, curve.recall, linewidth=1, label="recall")
    axes.plot(STEPS, curve.f1, color="black", linewidth=2.5, label="F1")
    if curves.f1 > 0:
        axes.axvline(curves.threshold, color="tab:red", linestyle="--", linewidth=1)
        best = f"best F1 {curves.f1:.2f}\nat {curves.threshold:.2f}"
        axes.plot(curves.threshold, curves.f1, "o", color="tab:red", label=best)
    axes.set(title=_title(curves, name, "F1 over the score"), xlabel="least score", ylabel="share, at IoU 0.5")
    _shares(axes, "xy")
    legend_beside(axes)
    return figure


def plot_confusion(curves: RunCurves, name: str) -> "Figure":
    """The confusion matrix, true classes down and predicted ones across: `shares` as colours and in percent, counts."""
    matrix, names = curves.confusion, [*map(shown, curves.classes), "background"]
    side = max(4.0, 0.45 * len(names))
    figure, (axes,) = new_figure(side + 2.8, side + 1.2)
    share = shares(matrix)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= MOST_NUMBERED + 1:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                colour = "white" if share[row, column] > 0.6 else "black"
                text = f"{share[row, column]:.0%}\n{count:,}"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize="x-small")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    below = f"predicted (score ≥ {curves.threshold:.2f}, IoU 0.5)"
    axes.set(title=_title(curves, name, "true and predicted"), xlabel=below, ylabel="true")
    figure.colorbar(image, ax=axes, label="share of the row; below, of the column", shrink=0.8)
    return figure


def plot_object_sizes(curves: RunCurves, name: str) -> "Figure":
    """How many objects of the split there are of each size, and AP of small, medium and large ones."""
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = new_figure(8.5, 4.8)
    axes.stairs(curves.sizes, SIZE_EDGES, fill=True, color="lightgrey", label="objects")
    axes.set_xscale("log", base=2)
    there = np.flatnonzero(curves.sizes)
    ends = (there[0], there[-1] + 1) if len(there) else (0, -1)
    first, last = 2 ** np.floor(np.log2(SIZE_EDGES[ends[0]])), 2 ** np.ceil(np.log2(SIZE_EDGES[ends[1]]))
    axes.set_xlim(first, last)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("√area of an object, pixels of the original image")
    axes.set(title=titled(name, "sizes of objects, and the AP of each"), ylabel="objects of the split")
    above = axes.twinx()
    borders = np.maximum.accumulate([first, *COCO_BORDERS, last])
    for number, (view, values) in enumerate(curves.size_ap.items()):
        # Views are often alike: a later line leaves something of an earlier one to be seen.
        above.stairs(100 * values, borders, baseline=None, linewidth=max(1.5, 4.5 - number), label=f"AP, {view}")
    for border in COCO_BORDERS:
        above.axvline(border, color="grey", linestyle=":", linewidth=1)
    above.set_ylim(0, 100)
    above.set_ylabel("AP of small, medium, large objects")
    legend_beside(axes, above)
    return figure


def plot_fusion(curves: RunCurves, name: str) -> "Figure":
    """The mean weight of each view, level by level, with its standard deviation over images."""
    fusion = curves.fusion
    assert fusion is not None
    figure, (axes,) = new_figure(8, 4.5)
    width = 0.8 / len(fusion.ks)
    for number, k in enumerate(fusion.ks):
        places = np.arange(len(fusion.levels)) + (number - (len(fusion.ks) - 1) / 2) * width
        spread = fusion.deviation[:, number]
        view, bars = view_in_full(k, fusion.ks), fusion.mean[:, number]
        axes.bar(places, bars, 0.95 * width, yerr=spread, capsize=3, ecolor="dimgrey", label=view)
    axes.axhline(1 / len(fusion.ks), color="grey", linestyle="--", linewidth=1)
    axes.set_xticks(range(len(fusion.levels)), [f"P{level}" for level in fusion.levels])
    title = titled(name, "weights of the views")
    axes.set(title=title, xlabel="level of the HR image", ylabel="weight in the fusion")
    _shares(axes, "y")
    legend_beside(axes)
    return figure


def _title(curves: RunCurves, name: str, what: str, kind: str = "boxes") -> str:
    return f"{titled(name, what)}\n{kind}, {curves.view} view"


def _shares(axes: "Axes", which: str) -> None:
    """Axes from 0 to 1, with a little room for lines along the border."""
    axes.grid(alpha=0.3)
    if "x" in which:
        axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
