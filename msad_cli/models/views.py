"""Which of a model's views is looked at."""

import math
from collections.abc import Mapping
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
