"""Precision over recall, and precision, recall and F1 over the score: the curves behind COCO's numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msad_cli.evaluation.coco_eval import Tables

STEPS = np.linspace(0.0, 1.0, 101)
"""COCOeval's recalls, and the scores at which a curve over scores is taken."""
MOST_CLASSES = 10
"""Classes with a curve of their own: more lines can't be told apart."""


@dataclass(frozen=True)
class PrecisionRecall:
    """Precisions (101,) at the recalls of `STEPS`, NaN where there is no ground truth.

    Attributes:
        at50, at75: means over all classes, at IoU (of keypoints: OKS) 0.5 and 0.75.
        by_class: at 0.5, by name; empty where there is one class alone.
    """

    at50: NDArray[np.float64]
    at75: NDArray[np.float64]
    by_class: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class OverScore:
    """Precision, recall and F1 (101,) of all boxes together whose score is at least each of `STEPS`, at IoU 0.5.

    NaN where nothing can be said: precision above the highest score, recall without ground truth.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def precision_over_recall(tables: Tables, objects: Mapping[int, int], names: Mapping[int, str]) -> PrecisionRecall:
    """COCOeval's precision over all areas, with the largest limit on detections.

    Args:
        objects: how many there are, by category id; the classes with the most get curves of their own.
        names: of the classes.
    """
    known = [i for i, category in enumerate(tables.category_ids) if tables.precision[0, 0, i, 0, -1] > -1]
    at50, at75 = (tables.precision[threshold, :, known, 0, -1] for threshold in (0, 5))  # (classes, 101) each
    rows = dict(zip((tables.category_ids[i] for i in known), at50, strict=True)) if len(known) > 1 else {}
    frequent = sorted(rows, key=lambda category: -objects.get(category, 0))[:MOST_CLASSES]
    nothing = np.full(len(STEPS), np.nan)
    return PrecisionRecall(
        at50.mean(axis=0) if known else nothing,
        at75.mean(axis=0) if known else nothing,
        {names[category]: rows[category] for category in frequent},
    )


def over_score(tables: Tables) -> OverScore:
    """Of the tables of boxes, which hold every detection's score."""
    order = np.argsort(-tables.scores, kind="stable")
    found = np.searchsorted(-tables.scores[order], -STEPS, side="right")  # detections of at least each score
    right = np.concatenate([[0], np.cumsum(tables.hits[order])])[found].astype(np.float64)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as it should be
        return OverScore(right / found, right / tables.objects, 2 * right / (found + tables.objects))
