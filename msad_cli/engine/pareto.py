"""Accuracy against latency: which models no other model beats in both, and their picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from msad_cli.engine.plots import new_figure, write_figure


@dataclass(frozen=True)
class Point:
    """A model's latency in milliseconds and its AP from 0 to 1."""

    milliseconds: float
    ap: float


def frontier(points: Mapping[str, Point]) -> list[str]:
    """The names of the models that no other beats, the fastest first: each slower one has a higher AP."""
    best: list[str] = []
    for name, point in sorted(points.items(), key=lambda each: (each[1].milliseconds, -each[1].ap)):
        if not best or point.ap > points[best[-1]].ap:
            best.append(name)
    return best


def within(points: Mapping[str, Point], budget: float) -> str | None:
    """The most accurate model that takes at most so many milliseconds, of equal ones the fastest; None if none does."""
    fitting = [name for name in frontier(points) if points[name].milliseconds <= budget]
    return fitting[-1] if fitting else None


def plot_pareto(points: Mapping[str, Point], path: Path, budget: float | None = None) -> None:
    """Draws AP in percent over latency, the frontier as a line, and the budget in milliseconds if there is one."""
    figure, (axes,) = new_figure(8, 5)
    best = [points[name] for name in frontier(points)]
    axes.plot([each.milliseconds for each in best], [100 * each.ap for each in best], drawstyle="steps-post", alpha=0.5)
    for name, point in points.items():
        axes.plot(point.milliseconds, 100 * point.ap, marker="o", color="tab:blue" if point in best else "tab:gray")
        axes.annotate(name, (point.milliseconds, 100 * point.ap), xytext=(5, 4), textcoords="offset points", fontsize=8)
    if budget is not None:
        axes.axvline(budget, linestyle="--", color="tab:red", label=f"{budget:g} ms")
        axes.legend(fontsize="small")
    axes.set_xlabel("latency of one picture, ms (median)")
    axes.set_ylabel("AP")
    axes.margins(y=0.1)
    widest = max((each.milliseconds for each in points.values()), default=1.0)
    axes.set_xlim(0, 1.2 * max(widest, budget or 0.0))  # room for the last name
    axes.grid(alpha=0.3)
    write_figure(figure, path)
