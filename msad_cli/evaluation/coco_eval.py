"""COCO's evaluation of one kind, boxes, masks or keypoints, by hotcoco or by pycocotools: the same tables from both."""

import contextlib
import gc
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import hotcoco
import numpy as np
from numpy.typing import NDArray

from msad_cli.system.extras import Evaluator

PREDICTED = {"bbox": ("bbox", "segmentation", "keypoints"), "segm": ("segmentation",), "keypoints": ("keypoints",)}
"""Of a detection, the first of these that it has is read, by COCOeval's name of the kind; others are made boxes."""
OBJECTS = {"bbox": ("bbox",), "segm": ("segmentation",), "keypoints": ("bbox", "keypoints", "num_keypoints")}
"""What is read of an annotation beside area and crowd."""
SIDES = {"bbox": (), "segm": ("height", "width"), "keypoints": ()}
"""What is read of an image; polygons are drawn at its size."""


@dataclass(frozen=True)
class Tables:
    """What an evaluation counted.

    Attributes:
        kind: COCOeval's iouType.
        category_ids: K ids, ascending.
        areas: names of the A ranges of area, `all` first.
        limits: M limits on detections of a class in an image, ascending.
        precision: (T, R, K, A, M), from 0 to 1 by T thresholds and R recalls; −1 where there is no ground truth.
        recall: (T, K, A, M), likewise.
        scores: (D,) of the boxes that count as right or wrong, class by class, then image by image in the order of
            their ids; none for other kinds.
        hits: (D,) whether they are right at IoU 0.5.
        objects: how many boxes there are to find; 0 for other kinds.
    """

    kind: str
    category_ids: tuple[int, ...]
    areas: tuple[str, ...]
    limits: tuple[int, ...]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    objects: int


def evaluate(
    truth: Mapping[str, Any],
    results: Iterable[Mapping[str, Any]],
    kind: str,
    sigmas: Sequence[float],
    most: int,
    evaluator: Evaluator = "hotcoco",
) -> Tables:
    """The tables of one kind; neither document is written into.

    Args:
        truth: a COCO instance document. Annotations without a segmentation take no part in that of masks.
        results: detections in COCO's result form. Those of categories that the truth lacks are passed over.
        kind: COCOeval's iouType: `bbox`, `segm` or `keypoints`.
        sigmas: one of each keypoint; read for keypoints alone.
        most: how many detections of a class in an image are counted.
        evaluator: whose.

    Raises:
        KeyError: a result is of an image that the truth lacks.
    """
    category_ids = sorted({each["id"] for each in truth["categories"]})
    start = _start_hotcoco if evaluator == "hotcoco" else _start_pycocotools
    with contextlib.redirect_stdout(io.StringIO()), _uncollected():
        evaluation = start(*_needed(truth, results, kind, category_ids), kind)
        params = evaluation.params
        # hotcoco hands out copies of its lists: what is not assigned as a whole is lost.
        params.maxDets = sorted([*params.maxDets[:-1], most])
        if kind == "keypoints":
            params.kpt_oks_sigmas = np.array(sigmas, dtype=np.float64)
        evaluation.evaluate()
        evaluation.accumulate()
        areas, limits, filled = tuple(params.areaRngLbl), tuple(params.maxDets), evaluation.eval
        counted = _counted(evaluation, evaluator) if kind == "bbox" else _pooled([])
    return Tables(kind, tuple(category_ids), areas, limits, filled["precision"], filled["recall"], *counted)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Pauses Python's search for cycles: of half a million small objects and no cycle, it takes a third of the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _needed(
    truth: Mapping[str, Any], results: Iterable[Mapping[str, Any]], kind: str, category_ids: Sequence[int]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Copies of what an evaluation of this kind reads, all ids counted from 1 in the order of the ids.

    hotcoco refuses negative ids, and whatever else a user's file has in fields that it knows but that no evaluation
    reads: a name that is a number, a width of null. pycocotools takes a match with an annotation of id 0 for none.
    Without their boxes, masks and keypoints that were found are sorted into sizes by what they are, as COCO's own are.
    """
    images = sorted({each["id"] for each in truth["images"]})
    image = {own: number for number, own in enumerate(images, start=1)}
    category = {own: number for number, own in enumerate(category_ids, start=1)}
    objects = [
        each
        for each in truth["annotations"]
        if each["image_id"] in image
        and each["category_id"] in category
        and (kind != "segm" or each.get("segmentation"))
    ]

    def of(each: Mapping[str, Any], *fields: str) -> dict[str, Any]:
        return {
            "image_id": image[each["image_id"]],
            "category_id": category[each["category_id"]],
            **{field: each[field] for field in fields},
        }

    document = {
        "images": [
            {"id": image[each["id"]], **{side: each[side] for side in SIDES[kind] if side in each}}
            for each in truth["images"]
        ],
        "categories": [{"id": number, "name": str(number)} for number in category.values()],
        "annotations": [
            {"id": number, **of(each, "area", "iscrowd", *OBJECTS[kind])}
            for number, each in enumerate(objects, start=1)
        ],
    }
    return document, [
        of(each, "score", next(field for field in PREDICTED[kind] if field in each))
        for each in results
        if each["category_id"] in category
    ]


def _start_hotcoco(truth: dict[str, Any], results: list[dict[str, Any]], kind: str) -> Any:
    coco = hotcoco.COCO(truth)
    return hotcoco.COCOeval(coco, coco.loadRes(results), kind)


def _start_pycocotools(truth: dict[str, Any], results: list[dict[str, Any]], kind: str) -> Any:
    from pycocotools.coco import COCO  # it imports matplotlib's pyplot
    from pycocotools.cocoeval import COCOeval

    coco, found = COCO(), COCO()
    coco.dataset = truth
    coco.createIndex()
    if results:
        found = coco.loadRes(results)
    else:  # which loadRes cannot take
        found.dataset = {**truth, "annotations": []}
        found.createIndex()
    return COCOeval(coco, found, kind)


def _counted(evaluation: Any, evaluator: Evaluator) -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
    """The scores, hits and objects of `Tables`, of all areas at IoU 0.5; hotcoco's evaluation is another afterwards."""
    params = evaluation.params
    if evaluator == "hotcoco":
        # As Python objects, the matches at all thresholds and areas take many times as long as the evaluation.
        params.iouThrs, params.areaRng, params.areaRngLbl = [0.5], params.areaRng[:1], params.areaRngLbl[:1]
        evaluation.evaluate()
    everything = params.areaRng[0]
    of_all = [each for each in evaluation.evalImgs if each is not None and each["aRng"] == everything]
    # pycocotools goes class by class, hotcoco image by image; of equal scores the first in this order ranks first.
    return _pooled(sorted(of_all, key=lambda each: (each["category_id"], each["image_id"])))


def _pooled(images: Sequence[Mapping[str, Any]]) -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
    """Entries of evalImgs as one."""
    scores = np.fromiter(chain.from_iterable(each["dtScores"] for each in images), np.float64)
    matches = np.fromiter(chain.from_iterable(each["dtMatches"][0] for each in images), np.int64)
    ignored = np.fromiter(chain.from_iterable(each["dtIgnore"][0] for each in images), np.bool_)
    crowds = np.fromiter(chain.from_iterable(each["gtIgnore"] for each in images), np.bool_)
    return scores[~ignored], matches[~ignored] > 0, int((~crowds).sum())
