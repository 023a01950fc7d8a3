"""What to say of a training that finds nothing."""

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from msad_cli.data.annotations.records import frame_scales
from msad_cli.data.annotations.split import CocoSplit
from msad_cli.evaluation.metrics import Scores
from msad_cli.models.spec import DetectorSpec
from msad_cli.training.run import Run

NOTHING = 0.005
"""AP below which nothing is found: boxes by chance have up to that."""
PATIENT = 2
"""Evaluations without a find after which it is said."""
SMALL = 8.0
"""Sides in pixels of what a student sees; cells of the finest level are as large."""
FEW_STEPS = 500


def finds_nothing(numbers: Iterable[Mapping[str, float | None]]) -> bool:
    """Whether no view finds anything, by the measures of each; nothing is known of a set without objects.

    Args:
        numbers: AP … by name, from 0 to 1.
    """
    known = [
        ap for each in numbers for name, ap in each.items() if name == "AP" and ap is not None and not math.isnan(ap)
    ]
    return bool(known) and max(known) < NOTHING


def of_scores(scores: Mapping[str, Scores]) -> bool:
    """Whether an evaluation found nothing by any view."""
    return finds_nothing(each.numbers for each in scores.values())


def remark(run: Run, scores: Mapping[str, Scores], step: int, ended: bool) -> str:
    """What to say after an evaluation that found nothing, with what may be the reason.

    Empty after others, and after the first one of a run that goes on.

    Args:
        step: steps done.
    """
    choices = run.choices
    epoch = step // choices.steps_per_epoch
    if not of_scores(scores) or (epoch < PATIENT * choices.eval_every and not ended):
        return ""
    causes = "; ".join(_causes(run, step))
    if ended:
        return f"nothing was learnt: AP is below {100 * NOTHING:g} after {epoch} epochs. Likely causes: {causes}"
    return f"nothing is found after {epoch} of {choices.epochs} epochs. Should that stay, likely causes: {causes}"


def _causes(run: Run, step: int) -> Iterator[str]:
    """The likeliest first, each with what to do."""
    spec, rate = run.detector.spec, run.choices.schedule.learning_rate
    side = median_side(spec, run.training.split)
    if side < SMALL:
        view = f"at 1/{spec.ks[-1]}" if spec.ks[-1] > 1 else "at this size"
        yield f"objects have a median side of {side:.0f} pixels {view}: a larger --size, or a smaller --k"
    if step < FEW_STEPS:
        yield f"these were {step} steps: more --epochs, or a smaller --batch"
    yield f"a learning rate of {rate:.2g}: --lr {rate / 4:.2g}, or {2 * rate:.2g}"
    picture = run.folder.samples / "training.jpg"
    yield f"labels that do not fit the images: look at {picture}, and at what msad data check says"


def median_side(spec: DetectorSpec, train: CocoSplit) -> float:
    """Of the objects in the smallest view, the median square root of the area, in its pixels."""
    corners = train.boxes
    scales = np.repeat(frame_scales(train.sizes, spec.resolution), np.diff(train.starts), axis=0)
    sides = np.sqrt(((corners[:, 2:] - corners[:, :2]) * scales[:, ::-1]).prod(axis=1))
    known = sides[~np.isnan(sides)]
    return float(np.median(known)) / spec.ks[-1] if len(known) else math.inf
