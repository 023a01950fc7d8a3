"""COCO evaluation by pycocotools: detections in original pixels, scored against the user's own annotation file."""

import contextlib
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from msad_cli.data.coco import CocoSplit, read_document
from msad_cli.data.loading import Batch, EvaluationSet, Sample, evaluation_loader
from msad_cli.data.transforms import from_frame
from msad_cli.engine.device import Compute
from msad_cli.engine.train import to_device
from msad_cli.models.detector import Detector
from msad_cli.models.spec import View
from msad_cli.structures.frame import Resolution

Result = dict[str, Any]
"""A detection in COCO's result form: image_id, category_id, bbox [x, y, w, h] in original pixels, score."""
Detect = Callable[[Mapping[int, Sequence[Tensor]]], Sequence[Mapping[str, Tensor]]]
"""Views by k -> per image `boxes` (corners, HR pixels), `scores`, `labels` (from 1)."""

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


@torch.inference_mode()
def detect_all(
    detect: Detect, batches: Iterable[Batch], compute: Compute
) -> Iterator[tuple[Sample, dict[str, Tensor]]]:
    """Each sample with its detections: `boxes` in original pixels, `scores`, `labels`, on the CPU."""
    for batch in batches:
        views, _ = to_device(batch, compute.device)
        with compute.autocast():
            detections = detect(views)
        for sample, found in zip(batch.samples, detections, strict=True):
            rest = {name: value.cpu() for name, value in found.items() if name != "boxes"}
            yield sample, {"boxes": original_boxes(found["boxes"], sample.original, sample.frame_size), **rest}


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


def split_results(detect: Detect, batches: Iterable[Batch], split: CocoSplit, compute: Compute) -> list[Result]:
    """COCO results of a whole split."""
    category_ids = [category_id for category_id, _ in split.categories]
    results = []
    for sample, found in detect_all(detect, batches, compute):
        results += coco_results(found, int(split.image_ids[sample.index]), category_ids)
    return results


def ground_truth(split: CocoSplit) -> dict[str, Any]:
    """The split's annotation file as COCOeval wants it, with `area` and `iscrowd` filled in where they are missing."""
    document = read_document(split.file)
    for each in (*document["images"], *document["categories"]):
        each["id"] = int(each["id"])
    annotations: list[dict[str, Any]] = []
    for each in document["annotations"]:
        box = [float(value) for value in each["bbox"]]
        area = each.get("area")
        if not np.isfinite(box).all():
            continue  # COCOeval takes a box of NaN for a match of every detection
        annotations.append(
            {
                **each,
                # COCOeval takes a match with an annotation of id 0 for none, and many files count from 0.
                "id": len(annotations) + 1,
                "image_id": int(each["image_id"]),
                "category_id": int(each["category_id"]),
                "bbox": box,
                "iscrowd": int(bool(each.get("iscrowd"))),
                "area": box[2] * box[3] if area is None else area,
            }
        )
    return {**document, "annotations": annotations}


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
    batch: int = 4,
) -> list[Result]:
    """COCO results of one view of a detector, which reads just the pixels that this view needs."""
    pictures = EvaluationSet(split, resolution or detector.spec.resolution, detector.spec.ks_of(view))
    detector.eval()
    batches = evaluation_loader(pictures, batch, workers)
    return split_results(lambda views: detector.detect(views, view), batches, split, compute)
