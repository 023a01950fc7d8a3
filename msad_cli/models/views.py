"""Which of a model's views is looked at."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path

from msad_cli.errors import UsageError
from msad_cli.models.spec import DetectorSpec, View


def view_of_best_ap(spec: DetectorSpec, scores: Mapping[str, Mapping[str, float | None]]) -> View:
    """The view that has the highest box AP; the model's own where none is known, and of equals.

    Args:
        scores: by view, as a `Card` has them.
    """

    def ap(view: View) -> float:
        known = scores.get(view, {}).get("AP")
        return -1.0 if known is None or math.isnan(known) else known

    return max(spec.views, key=ap)


def choose_views(view: str | None, spec: DetectorSpec, model: Path) -> tuple[View, ...]:
    """The views of a model that are asked for, its best first; None asks for every one it has.

    Raises:
        UsageError: the model has no such view.
    """
    views = tuple(each for each in spec.views if view in (None, each))
    if not views:
        raise UsageError(
            f"--view {view}: {model} has {', '.join(spec.views)}", "leave --view away for its own", code="unknown-view"
        )
    return views


def wanted_views(view: str | None, spec: DetectorSpec, path: Path) -> dict[View, str]:
    """The views of a model that a flag asks for, each with what its row's name has behind the model's: `, low` of all.

    Raises:
        UsageError: the model has no such view.
    """
    if view == "all":
        return {each: f", {each}" if len(spec.views) > 1 else "" for each in choose_views(None, spec, path)}
    return {choose_views(view, spec, path)[0]: ""}


def view_of_k(k: int, ks: Collection[int]) -> View:
    """What the view is called that is downsampled by k, in a model whose views are downsampled by `ks`."""
    return "high" if k == 1 else "low" if k == max(ks) else "middle"


def image_of_k(k: int) -> str:
    """Which image a view sees: `HR`, `1/2`."""
    return "HR" if k == 1 else f"1/{k}"


def view_in_full(k: int, ks: Collection[int]) -> str:
    """`high (HR)`, `low (1/2)`: its name, and which image it sees."""
    return f"{view_of_k(k, ks)} ({image_of_k(k)})"
