"""The plot of accuracy against latency."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msad_cli.evaluation.pareto import Point, frontier, within
from msad_cli.runs.plots.figures import new_figure, shown, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BESIDE = (6, 3)
"""Points (1/72 inch) from a model to its name, across and up."""
LONGEST_NAME = 40
"""Letters: three eighths of the plot."""


def plot_pareto(points: Mapping[str, Point], path: Path, where: str = "", budget: float | None = None) -> None:
    """Writes `pareto_figure` as PNG."""
    write_figure(pareto_figure(points, where, budget), path)


def pareto_figure(points: Mapping[str, Point], where: str = "", budget: float | None = None) -> "Figure":
    """AP in percent over latency, the frontier as a line, and what fits best into a budget in milliseconds.

    Args:
        where: what the latencies were measured on.
    """
    figure, (axes,) = new_figure(8, 5)
    best = frontier(points)
    steps = [points[name] for name in best]
    axes.plot(
        [each.milliseconds for each in steps], [100 * each.ap for each in steps], drawstyle="steps-post", alpha=0.5
    )
    for name, point in points.items():
        colour = "tab:blue" if name in best else "tab:gray"
        axes.plot(point.milliseconds, 100 * point.ap, marker="o", color=colour)
    if budget is not None:
        axes.axvline(budget, linestyle="--", color="tab:red", label=f"{budget:g} ms")
        if (chosen := within(points, budget)) is not None:
            point = points[chosen]
            ring: dict[str, Any] = {"markersize": 14, "markerfacecolor": "none", "color": "tab:red"}
            label = f"the best for it: {shown(chosen)}"
            axes.plot(point.milliseconds, 100 * point.ap, "o", label=label, **ring)
        axes.legend(fontsize="small", loc="lower right", frameon=False)
    axes.set(title=f"AP over latency\n{where}".strip(), xlabel="latency of one image, ms (median)", ylabel="AP")
    axes.title.set_fontsize("small")
    axes.margins(y=0.1)
    widest = max((each.milliseconds for each in points.values()), default=1.0)
    axes.set_xlim(0, 1.2 * max(widest, budget or 0.0))  # room for the last name
    axes.grid(alpha=0.3)
    figure.draw_without_rendering()  # from here on it is known where everything lies
    _name(axes, points, best)
    return figure


def _name(axes: "Axes", points: Mapping[str, Point], best: Sequence[str]) -> None:
    """Writes names beside their points, those of the frontier first: left of them where the right has no room, and
    lower where one would cover something.

    Args:
        axes: of a figure that was laid out.
    """
    from matplotlib.transforms import Bbox

    places = {name: (each.milliseconds, 100 * each.ap) for name, each in points.items()}
    covered = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in axes.transData.transform(list(places.values()))]
    for name in [*best[::-1], *sorted(points.keys() - best, key=lambda each: -points[each].ap)]:
        colour = "tab:blue" if name in best else "dimgray"
        text = axes.annotate(
            shown(name, LONGEST_NAME), places[name], xytext=BESIDE, textcoords="offset points", fontsize=8, color=colour
        )
        if text.get_window_extent().x1 > axes.bbox.x1:
            text.set_horizontalalignment("right")
            text.xyann = -BESIDE[0], BESIDE[1]
        beside = text.xyann
        while any(text.get_window_extent().overlaps(each) for each in covered):
            text.xyann = beside[0], text.xyann[1] - 2
        covered.append(text.get_window_extent())
        if text.xyann != beside:
            line = {"arrowstyle": "-", "linewidth": 0.5, "color": colour}
            down = beside[0], text.xyann[1] + 3
            axes.annotate("", places[name], xytext=down, textcoords="offset points", arrowprops=line)
