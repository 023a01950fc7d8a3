"""COCO's numbers: detections in original pixels against a COCO document."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msad_cli.evaluation.coco_eval import Tables, evaluate
from msad_cli.evaluation.curves import OverScore, PrecisionRecall, over_score, precision_over_recall
from msad_cli.system.extras import Evaluator

Result = dict[str, Any]
"""A detection in COCO's result form: image_id, category_id, bbox [x, y, w, h] in original pixels, score; and by task
`segmentation` (compressed RLE) or `keypoints` [x, y, v, …]."""

NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCOeval's summary for boxes and masks, in its order."""
KEYPOINT_NUMBERS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
"""COCOeval's summary for keypoints, in its order."""

PREFIXES = {"bbox": "", "segm": "mask_", "keypoints": "keypoint_"}
"""What stands before the names of the numbers, by COCOeval's name of the kind."""
KINDS = {"boxes": ("bbox",), "masks": ("bbox", "segm"), "keypoints": ("bbox", "keypoints")}
"""What is measured, by task."""
USUAL = {"bbox": 100, "segm": 100, "keypoints": 20}
"""COCO's limit on detections of one class in an image."""
LARGER = (100, 300, 1000, 3000, 10_000)
"""Limits where an image holds more objects of a class than COCO's."""
SIGMA = 0.05
"""Of keypoints that nobody measured; COCO's own go from 0.025 (eyes) to 0.107 (hips)."""
# Tenths, divided: to the last bit what pycocotools has.
OF_PERSONS = tuple(
    each / 10
    for each in (0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89)
)
"""COCO's own, of its 17 keypoints of persons."""


@dataclass(frozen=True)
class Scores:
    """What COCOeval says; NaN where there is no ground truth to say it of.

    Attributes:
        numbers: each of `NUMBERS` for boxes, from 0 to 1; by task also those of masks, `mask_AP`…, or those of
            keypoints, `keypoint_AP`…
        per_class: `AP`, `AP50`, `APs`, `APm`, `APl` by class name, with the same prefixes.
        threshold: the score at which F1 over all classes at IoU 0.5 of boxes is best.
        f1: that F1.
        precision: over recall, by COCOeval's name of each kind that was measured.
        over_score: of boxes.
    """

    numbers: dict[str, float]
    per_class: dict[str, dict[str, float]]
    threshold: float
    f1: float
    precision: dict[str, PrecisionRecall]
    over_score: OverScore

    def to_json(self) -> dict[str, object]:
        """The numbers as plain values, NaN included; without the curves."""
        return {**self.numbers, "per_class": self.per_class, "threshold": self.threshold, "F1": self.f1}


def main_number(numbers: Mapping[str, float], task: str) -> float:
    """By what models of a task are compared: AP of masks, keypoints or boxes; of boxes too where the task's is unknown.

    Args:
        numbers: of a view, by name.
    """
    value = numbers.get(f"{PREFIXES[KINDS[task][-1]]}AP", math.nan)
    return numbers.get("AP", math.nan) if math.isnan(value) else value


def never_found(per_class: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Classes that have ground truth, of which no box was found."""
    return [name for name, numbers in per_class.items() if numbers.get("AP50") == 0]


def number_names(truth: Mapping[str, Any], task: str) -> tuple[str, ...]:
    """The names of the numbers that `score` will give, in order."""
    return tuple(
        PREFIXES[kind] + name for kind in KINDS[task] for name in _names(kind, counted_detections(truth, USUAL[kind]))
    )


def counted_detections(truth: Mapping[str, Any], usual: int = USUAL["bbox"]) -> int:
    """How many detections of one class in an image are counted: COCO's number, unless there are more objects."""
    objects = Counter(
        (each["image_id"], each["category_id"]) for each in truth["annotations"] if not each.get("iscrowd")
    )
    most = max(objects.values(), default=0)
    return usual if most <= usual else next((each for each in LARGER if each >= most), most)


def remarks(truth: Mapping[str, Any], task: str, given: int, sigmas: Sequence[float] = ()) -> Iterator[str]:
    """What is measured otherwise than in COCO, in lines.

    Args:
        truth: the ground truth.
        task: `boxes`, `masks` or `keypoints`.
        given: how many detections an image the model gives at most.
        sigmas: those of keypoints that nobody has chosen; none where somebody has.
    """
    for kind in ("bbox",) if task == "masks" else KINDS[task]:
        counted = counted_detections(truth, USUAL[kind])
        if counted > USUAL[kind]:
            of = "keypoints" if kind == "keypoints" else task if task == "boxes" else "boxes and masks"
            yield (
                f"an image holds more than {USUAL[kind]} objects of a class: for {of}, up to {counted} detections a "
                f"image are counted, where COCO counts {USUAL[kind]}; the model gives at most {given}"
            )
    if sigmas:
        own = f"{SIGMA} for each" if set(sigmas) == {SIGMA} else "COCO's for persons"
        yield f"nobody measured how far off these keypoints are placed: the OKS takes {own}; --sigmas gives others"


def oks_sigmas(keypoints: int, given: Sequence[float] = ()) -> tuple[float, ...]:
    """How far annotators place each keypoint, as shares of the object's size: given ones, COCO's 17, or 0.05 each."""
    if given:
        return tuple(given)
    return OF_PERSONS if keypoints == len(OF_PERSONS) else (SIGMA,) * keypoints


def score(
    truth: dict[str, Any],
    results: list[Result],
    task: str = "boxes",
    sigmas: Sequence[float] = (),
    max_detections: int | None = None,
    evaluator: Evaluator = "hotcoco",
) -> Scores:
    """COCOeval's verdict on results.

    Args:
        truth: a COCO instance document; by task with segmentations as COCOeval reads them, or with keypoints.
        results: detections of its images.
        task: `boxes`, `masks` or `keypoints`; the last two are measured beside boxes.
        sigmas: for keypoints; without them, `oks_sigmas`' choice.
        max_detections: how many of a class in an image are counted; None leaves COCO's number (100, of keypoints 20),
            or takes a larger one where an image holds more objects.
        evaluator: which library evaluates; the numbers are the same.
    """
    numbers: dict[str, float] = {}
    names = {each["id"]: str(each["name"]) for each in truth["categories"]}
    per_class: dict[str, dict[str, float]] = {name: {} for name in names.values()}
    objects = Counter(each["category_id"] for each in truth["annotations"] if not each.get("iscrowd"))
    every: dict[str, Tables] = {}
    for kind in KINDS[task]:
        most = max_detections or counted_detections(truth, USUAL[kind])
        spread = oks_sigmas(_keypoints(truth), sigmas) if kind == "keypoints" else ()
        tables = every[kind] = evaluate(truth, results, kind, spread, most, evaluator)
        numbers |= {PREFIXES[kind] + name: value for name, value in _summary(tables).items()}
        for category, row in _by_class(tables).items():
            per_class[names[category]] |= {PREFIXES[kind] + name: value for name, value in row.items()}
    precision = {kind: precision_over_recall(tables, objects, names) for kind, tables in every.items()}
    return Scores(numbers, per_class, *_best_f1(every["bbox"]), precision, over_score(every["bbox"]))


def _keypoints(truth: Mapping[str, Any]) -> int:
    return max((len(each.get("keypoints", ())) // 3 for each in truth["annotations"]), default=0)


def _names(kind: str, most: int) -> tuple[str, ...]:
    return (
        KEYPOINT_NUMBERS if kind == "keypoints" else tuple(f"AR{most}" if each == "AR100" else each for each in NUMBERS)
    )


def _summary(tables: Tables) -> dict[str, float]:
    """COCOeval's own summary, which looks for 100 detections by that number, and gives -1 for any other."""
    numbers = {}
    for name in _names(tables.kind, tables.limits[-1]):
        values = tables.precision if name.startswith("AP") else tables.recall
        end = name[2:]
        limit, area, threshold = len(tables.limits) - 1, "all", slice(None)
        if end in ("50", "75") and (name.startswith("AP") or tables.kind == "keypoints"):
            threshold = slice(0, 1) if end == "50" else slice(5, 6)
        elif end.isdigit():
            limit = tables.limits.index(int(end))
        elif end:
            area = {"s": "small", "m": "medium", "l": "large"}[end]
        numbers[name] = _mean(values[threshold, ..., tables.areas.index(area), limit])
    return numbers


def _mean(values: NDArray[Any]) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else math.nan


def _by_class(tables: Tables) -> dict[int, dict[str, float]]:
    """AP, AP50 and AP by area of each category id."""
    precision = tables.precision
    return {
        category: {
            "AP": _mean(precision[:, :, i, 0, -1]),
            "AP50": _mean(precision[0, :, i, 0, -1]),
            **{f"AP{area[0]}": _mean(precision[:, :, i, at, -1]) for at, area in enumerate(tables.areas) if at},
        }
        for i, category in enumerate(tables.category_ids)
    }


def _best_f1(tables: Tables) -> tuple[float, float]:
    """The score threshold with the best F1 over all classes at IoU 0.5, and that F1."""
    if not tables.objects:
        return 0.5, math.nan
    order = np.argsort(-tables.scores, kind="stable")
    f1 = 2 * np.cumsum(tables.hits[order]) / (np.arange(1, len(order) + 1) + tables.objects)
    if not f1.any():
        return 0.5, 0.0  # no score is better than another
    best = int(f1.argmax())
    # Results are rounded to five digits; the detection at the threshold has to pass it unrounded too.
    return max(0.0, float(tables.scores[order][best]) - 1e-5), float(f1[best])
