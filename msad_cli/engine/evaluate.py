"""COCO evaluation by pycocotools: detections in original pixels, scored against the user's own annotation file."""

import contextlib
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from msad_cli.data.coco import CocoSplit
from msad_cli.data.loading import Batch, EvaluationSet, Sample, evaluation_loader, tolerate
from msad_cli.data.records import examine, read_document
from msad_cli.data.transforms import from_frame
from msad_cli.data.values import whole_number
from msad_cli.engine.device import Compute
from msad_cli.engine.train import to_device
from msad_cli.models.detector import Detector
from msad_cli.models.spec import View
from msad_cli.structures.frame import Resolution

Result = dict[str, Any]
"""A detection in COCO's result form: image_id, category_id, bbox [x, y, w, h] in original pixels, score."""
Detect = Callable[[Mapping[int, Sequence[Tensor]]], Sequence[Mapping[str, Tensor]]]
"""Views by k -> per image `boxes` (corners, HR pixels), `scores`, `labels` (from 1)."""

EVALUATION_BATCH = 4
IDENTIFIED = ("images", "categories")
"""The lists of a COCO document whose ids others refer to."""
NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCOeval's summary for boxes, in its order."""


@dataclass(frozen=True)
class Scores:
    """What COCOeval says; NaN where there is no ground truth to say it of.

    Attributes:
        numbers: each of `NUMBERS`, from 0 to 1.
        per_class: `AP`, `AP50`, `APs`, `APm`, `APl` by class name.
        threshold: the score at which F1 over all classes at IoU 0.5 is best.
        f1: that F1.
    """

    numbers: dict[str, float]
    per_class: dict[str, dict[str, float]]
    threshold: float
    f1: float

    def to_json(self) -> dict[str, object]:
        """All of it as plain values, NaN included."""
        return {**self.numbers, "per_class": self.per_class, "threshold": self.threshold, "F1": self.f1}


def original_boxes(boxes: Tensor, original: tuple[int, int], frame_size: tuple[int, int]) -> Tensor:
    """Boxes (D, 4) in HR pixels -> in pixels of the original picture, clipped to it; sizes are (height, width)."""
    height, width = original
    scaled = from_frame(boxes.float().cpu(), original, frame_size)
    return scaled.clamp(min=0).minimum(scaled.new_tensor([width, height, width, height]))


@dataclass(frozen=True)
class Detected:
    """What was found in a split.

    Attributes:
        results: in COCO's form.
        unreadable: by place in the split, why a picture could not be looked at; its objects count as missed.
    """

    results: list[Result]
    unreadable: dict[int, str]


def detect_batch(detect: Detect, batch: Batch, compute: Compute) -> list[tuple[Sample, dict[str, Tensor]]]:
    """Each sample with its detections: `boxes` in original pixels, `scores`, `labels`, on the CPU."""
    if not batch.samples:
        return []
    views, _ = to_device(batch.views, batch.targets, compute.device)
    with compute.inference():
        detections = detect(views)
    detected = []
    for sample, found in zip(batch.samples, detections, strict=True):
        rest = {name: value.cpu() for name, value in found.items() if name != "boxes"}
        boxes = original_boxes(found["boxes"], sample.original, sample.frame_size)
        detected.append((sample, {"boxes": boxes, **rest}))
    return detected


def coco_results(found: Mapping[str, Tensor], image_id: int, category_ids: Sequence[int]) -> list[Result]:
    """Detections of one picture in COCO's result form, categories with the user's own ids."""
    corners = found["boxes"].double()
    sides = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)
    rows = zip(sides.tolist(), found["scores"].tolist(), found["labels"].tolist(), strict=True)
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label - 1],
            "bbox": [round(value, 2) for value in box],
            "score": round(score, 5),
        }
        for box, score, label in rows
    ]


def split_results(detect: Detect, batches: Iterable[Batch], split: CocoSplit, compute: Compute) -> Detected:
    """What is found in a whole split."""
    category_ids = [category_id for category_id, _ in split.categories]
    detected = Detected([], {})
    for batch in batches:
        for sample, found in detect_batch(detect, batch, compute):
            detected.results.extend(coco_results(found, int(split.image_ids[sample.index]), category_ids))
        detected.unreadable.update(batch.unreadable)
    return detected


def ground_truth(split: CocoSplit) -> dict[str, Any]:
    """The split's annotation file as COCOeval wants it: ids as whole numbers, `area` and `iscrowd` filled in.

    Boxes that training drops (without extent, repeated) stay: the numbers are those of the user's own file.
    """
    document = read_document(split.file)
    records = examine(document, split.file, split.folder, split.categories)
    of = records.annotations
    finite = np.isfinite(of.boxes).all(axis=1)  # COCOeval takes a box of NaN for a match of every detection
    category_ids = np.array([category_id for category_id, _ in records.categories], dtype=np.int64)
    annotations = [
        # COCOeval takes a match with an annotation of id 0 for none, and many files count from 0.
        {**document["annotations"][row], "id": number, "image_id": image, "category_id": category}
        | {"bbox": box, "area": area, "iscrowd": int(crowd)}
        for number, (row, image, category, box, area, crowd) in enumerate(
            zip(
                of.rows[finite].tolist(),
                records.image_ids[of.images[finite]].tolist(),
                category_ids[of.labels[finite] - 1].tolist(),
                of.boxes[finite].tolist(),
                of.areas[finite].tolist(),
                of.crowd[finite].tolist(),
                strict=True,
            ),
            start=1,
        )
    ]
    own = {name: [{**each, "id": whole_number(each["id"])} for each in document[name]] for name in IDENTIFIED}
    return {**document, **own, "annotations": annotations}


def score(truth: dict[str, Any], results: list[Result], kind: str = "bbox") -> Scores:
    """COCOeval's verdict on results.

    Args:
        truth: a COCO instance document.
        results: detections of its pictures.
        kind: COCOeval's iouType; `bbox`, or `segm` for results with masks.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        names = {each["id"]: str(each["name"]) for each in truth["categories"]}
        # loadRes writes into the results that it is given.
        found = coco.loadRes([dict(each) for each in results]) if results else _nothing_found(truth)
        evaluation = COCOeval(coco, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    numbers = {name: _known(value) for name, value in zip(NUMBERS, evaluation.stats, strict=True)}
    threshold, f1 = _best_f1(evaluation)
    return Scores(numbers, _per_class(evaluation, names), threshold, f1)


def _nothing_found(truth: dict[str, Any]) -> COCO:
    # COCO.loadRes cannot take an empty list.
    found = COCO()
    found.dataset = {**truth, "annotations": []}
    found.createIndex()
    return found


def _known(value: float) -> float:
    return math.nan if value < 0 else float(value)


def _per_class(evaluation: COCOeval, names: dict[int, str]) -> dict[str, dict[str, float]]:
    # precision: (IoU thresholds, recalls, classes, areas [all, small, medium, large], maxDets [1, 10, 100])
    precision = evaluation.eval["precision"]

    def mean(values: Any) -> float:
        known = values[values > -1]
        return float(known.mean()) if known.size else math.nan

    return {
        names[category]: {
            "AP": mean(precision[:, :, i, 0, -1]),
            "AP50": mean(precision[0, :, i, 0, -1]),
            **{name: mean(precision[:, :, i, area, -1]) for area, name in enumerate(("APs", "APm", "APl"), start=1)},
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


def view_results(
    detector: Detector,
    split: CocoSplit,
    view: View,
    compute: Compute,
    workers: int,
    resolution: Resolution | None = None,
    batch: int = EVALUATION_BATCH,
) -> Detected:
    """What one view of a detector finds in a split; it reads just the pixels that this view needs.

    Raises:
        DataError: too many pictures cannot be read.
    """
    pictures = EvaluationSet(split, resolution or detector.spec.resolution, detector.spec.ks_of(view))
    detector.eval()
    batches = evaluation_loader(pictures, batch, workers)
    detected = split_results(lambda views: detector.detect(views, view), batches, split, compute)
    tolerate(detected.unreadable, split)
    return detected
