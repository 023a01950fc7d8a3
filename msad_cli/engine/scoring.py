"""COCO evaluation by pycocotools: detections in original pixels against a COCO document."""

import contextlib
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

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
"""COCO's limit on detections of one class in a picture."""
LARGER = (100, 300, 1000, 3000, 10_000)
"""Limits where a picture holds more objects of a class than COCO's."""
SIGMA = 0.05
"""Of keypoints that nobody measured; COCO's own go from 0.025 (eyes) to 0.107 (hips)."""


@dataclass(frozen=True)
class Scores:
    """What COCOeval says; NaN where there is no ground truth to say it of.

    Attributes:
        numbers: each of `NUMBERS` for boxes, from 0 to 1; by task also those of masks, `mask_AP`…, or those of
            keypoints, `keypoint_AP`…
        per_class: `AP`, `AP50`, `APs`, `APm`, `APl` by class name, with the same prefixes.
        threshold: the score at which F1 over all classes at IoU 0.5 of boxes is best.
        f1: that F1.
    """

    numbers: dict[str, float]
    per_class: dict[str, dict[str, float]]
    threshold: float
    f1: float

    def to_json(self) -> dict[str, object]:
        """All of it as plain values, NaN included."""
        return {**self.numbers, "per_class": self.per_class, "threshold": self.threshold, "F1": self.f1}


def number_names(truth: Mapping[str, Any], task: str) -> tuple[str, ...]:
    """The names of the numbers that `score` will give, in order."""
    return tuple(
        PREFIXES[kind] + name for kind in KINDS[task] for name in _names(kind, counted_detections(truth, USUAL[kind]))
    )


def counted_detections(truth: Mapping[str, Any], usual: int = USUAL["bbox"]) -> int:
    """How many detections of one class in a picture are counted: COCO's number, unless there are more objects."""
    objects = Counter(
        (each["image_id"], each["category_id"]) for each in truth["annotations"] if not each.get("iscrowd")
    )
    most = max(objects.values(), default=0)
    return usual if most <= usual else next((each for each in LARGER if each >= most), most)


def oks_sigmas(keypoints: int, given: Sequence[float] = ()) -> tuple[float, ...]:
    """How far annotators place each keypoint, as shares of the object's size: given ones, COCO's 17, or 0.05 each."""
    if given:
        return tuple(given)
    of_persons = Params("keypoints").kpt_oks_sigmas
    return tuple(of_persons.tolist()) if keypoints == len(of_persons) else (SIGMA,) * keypoints


def score(
    truth: dict[str, Any],
    results: list[Result],
    task: str = "boxes",
    sigmas: Sequence[float] = (),
    max_detections: int | None = None,
) -> Scores:
    """COCOeval's verdict on results.

    Args:
        truth: a COCO instance document; by task with segmentations as COCOeval reads them, or with keypoints.
        results: detections of its pictures.
        task: `boxes`, `masks` or `keypoints`; the last two are measured beside boxes.
        sigmas: for keypoints; without them, `oks_sigmas`' choice.
        max_detections: how many of a class in a picture are counted; None leaves COCO's number (100, of keypoints 20),
            or takes a larger one where a picture holds more objects.
    """
    numbers: dict[str, float] = {}
    names = {each["id"]: str(each["name"]) for each in truth["categories"]}
    per_class: dict[str, dict[str, float]] = {name: {} for name in names.values()}
    threshold, f1 = 0.5, math.nan
    for kind in KINDS[task]:
        most = max_detections or counted_detections(truth, USUAL[kind])
        evaluation = evaluate(truth, results, kind, sigmas, most)
        numbers |= {PREFIXES[kind] + name: value for name, value in _summary(evaluation).items()}
        for category, row in _by_class(evaluation).items():
            per_class[names[category]] |= {PREFIXES[kind] + name: value for name, value in row.items()}
        if kind == "bbox":
            threshold, f1 = _best_f1(evaluation)
    return Scores(numbers, per_class, threshold, f1)


def evaluate(
    truth: dict[str, Any],
    results: list[Result],
    kind: str,
    sigmas: Sequence[float] = (),
    max_detections: int | None = None,
) -> COCOeval:
    """COCOeval for one kind, its tables filled.

    Args:
        truth, results, sigmas: as for `score`. Annotations without a segmentation take no part in that of masks.
        kind: COCOeval's iouType: `bbox`, `segm` or `keypoints`.
        max_detections: None for COCO's own.
    """
    if kind == "segm":
        truth = {**truth, "annotations": [each for each in truth["annotations"] if each.get("segmentation")]}
    # loadRes writes into the results that it is given. Of one with a box it takes the box's area, where COCO's own
    # results of masks and keypoints, which have none, are sorted into sizes by what they are.
    shown = [{name: each[name] for name in each if name != "bbox" or kind == "bbox"} for each in results]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        found = coco.loadRes(shown) if shown else _nothing_found(truth)
        evaluation = COCOeval(coco, found, kind)
        if max_detections is not None:
            evaluation.params.maxDets[-1] = max_detections
        if kind == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.array(oks_sigmas(_keypoints(truth), sigmas))
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _nothing_found(truth: dict[str, Any]) -> COCO:
    # COCO.loadRes cannot take an empty list.
    found = COCO()
    found.dataset = {**truth, "annotations": []}
    found.createIndex()
    return found


def _keypoints(truth: Mapping[str, Any]) -> int:
    return max((len(each.get("keypoints", ())) // 3 for each in truth["annotations"]), default=0)


def _names(kind: str, most: int) -> tuple[str, ...]:
    return (
        KEYPOINT_NUMBERS if kind == "keypoints" else tuple(f"AR{most}" if each == "AR100" else each for each in NUMBERS)
    )


def _summary(evaluation: COCOeval) -> dict[str, float]:
    """COCOeval's own summary, which looks for 100 detections by that number, and answers -1 for any other."""
    params = evaluation.params
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]  # (T, R, K, A, M) and (T, K, A, M)
    numbers = {}
    for name in _names(params.iouType, params.maxDets[-1]):
        values = precision if name.startswith("AP") else recall
        end = name[2:]
        limit, area, threshold = len(params.maxDets) - 1, "all", slice(None)
        if end in ("50", "75") and (name.startswith("AP") or params.iouType == "keypoints"):
            threshold = slice(0, 1) if end == "50" else slice(5, 6)
        elif end.isdigit():
            limit = params.maxDets.index(int(end))
        elif end:
            area = {"s": "small", "m": "medium", "l": "large"}[end]
        numbers[name] = _mean(values[threshold, ..., params.areaRngLbl.index(area), limit])
    return numbers


def _mean(values: NDArray[Any]) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else math.nan


def _by_class(evaluation: COCOeval) -> dict[int, dict[str, float]]:
    """AP, AP50 and AP by area of each category id."""
    precision, areas = evaluation.eval["precision"], evaluation.params.areaRngLbl
    return {
        category: {
            "AP": _mean(precision[:, :, i, 0, -1]),
            "AP50": _mean(precision[0, :, i, 0, -1]),
            **{f"AP{area[0]}": _mean(precision[:, :, i, at, -1]) for at, area in enumerate(areas) if at},
        }
        for i, category in enumerate(evaluation.params.catIds)
    }


def _best_f1(evaluation: COCOeval) -> tuple[float, float]:
    """The score threshold with the best F1 over all classes at IoU 0.5, and that F1."""
    scores, hits, objects = [], [], 0
    everything = evaluation.params.areaRng[0]
    for each in evaluation.evalImgs:
        if each is None or each["aRng"] != everything:
            continue
        counted = ~each["dtIgnore"][0].astype(bool)
        scores.append(np.asarray(each["dtScores"])[counted])
        hits.append(each["dtMatches"][0][counted] > 0)
        objects += int((~np.asarray(each["gtIgnore"]).astype(bool)).sum())
    if not objects:
        return 0.5, math.nan
    ranked = np.concatenate(scores)
    order = np.argsort(-ranked, kind="stable")
    f1 = 2 * np.cumsum(np.concatenate(hits)[order]) / (np.arange(1, len(order) + 1) + objects)
    if not f1.size:
        return 0.5, 0.0
    best = int(f1.argmax())
    # Results are rounded to five digits; the detection at the threshold has to pass it unrounded too.
    return max(0.0, float(ranked[order][best]) - 1e-5), float(f1[best])
