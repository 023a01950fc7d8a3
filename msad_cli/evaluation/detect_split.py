"""What a detector finds in the images of a split, in original pixels and in COCO's result form."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from msad_cli.data.annotations.segmentation import encode_mask
from msad_cli.data.annotations.split import CocoSplit
from msad_cli.data.loading.dataset import Batch, EvaluationSet, Sample, evaluation_loader, tolerate
from msad_cli.data.loading.transforms import from_frame
from msad_cli.distillation.split_losses import SplitLosses
from msad_cli.evaluation.metrics import Result
from msad_cli.export.runtime import Model
from msad_cli.frame import Resolution
from msad_cli.models.decode.nms import one_class_a_box
from msad_cli.models.decode.paste_masks import LEARNT_SHIFT, paste_masks
from msad_cli.models.spec import View
from msad_cli.system.device import Compute, to_device
from msad_cli.system.distributed import gather, hand_in, rank, size

Detect = Callable[[Mapping[int, Sequence[Tensor]]], Sequence[Mapping[str, Tensor]]]
"""Views by k -> per image `boxes` (corners, HR pixels), `scores`, `labels` (from 1), and by task `masks`
(D, 1, 28, 28), probabilities on a grid over each box, or `keypoints` (D, K, 3) in HR pixels."""

EVALUATION_BATCH = 4


def in_original(
    found: Mapping[str, Tensor], original: tuple[int, int], frame_size: tuple[int, int]
) -> dict[str, Tensor]:
    """Detections of an image from HR pixels to those of the original, on the CPU; sizes are (height, width).

    Boxes and keypoints are clipped to the image. Masks stay as they are; `mask_boxes` (D, 4) are what they lie over.
    """
    height, width = original
    moved = {name: each.cpu() for name, each in found.items()}
    boxes = moved["boxes"].float()
    if "masks" in moved:
        moved["mask_boxes"] = from_frame(boxes + LEARNT_SHIFT, original, frame_size)
    scaled = from_frame(boxes, original, frame_size)
    moved["boxes"] = scaled.clamp(min=0).minimum(scaled.new_tensor([width, height, width, height]))
    if "keypoints" in moved:
        points = moved["keypoints"].float()
        ratio = points.new_tensor([width / frame_size[1], height / frame_size[0], 1])
        limit = points.new_tensor([width, height, torch.inf])
        moved["keypoints"] = (points * ratio).clamp(min=0).minimum(limit)
    return moved


@dataclass(frozen=True)
class Detected:
    """What was found in a split.

    Attributes:
        results: in COCO's form.
        unreadable: by place in the split, why an image could not be looked at; its objects count as missed.
    """

    results: list[Result]
    unreadable: dict[int, str]


def detect_batch(detect: Detect, batch: Batch, compute: Compute) -> list[tuple[Sample, dict[str, Tensor]]]:
    """Each sample with its detections, as `in_original` gives them."""
    if not batch.samples:
        return []
    views, _ = to_device(batch.views, batch.targets, compute.device)
    with compute.inference():
        detections = detect(views)
    return [
        (sample, in_original(found, sample.original, sample.frame_size))
        for sample, found in zip(batch.samples, detections, strict=True)
    ]


def coco_results(
    found: Mapping[str, Tensor], image_id: int, category_ids: Sequence[int], size: tuple[int, int]
) -> list[Result]:
    """Detections of one image of (height, width) pixels in COCO's result form, categories with the user's own ids.

    Masks become RLE of the whole image, as text that JSON can hold; keypoints a list x, y, v, x, y, v, …
    """
    corners = found["boxes"].double()
    sides = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)
    rows = zip(sides.tolist(), found["scores"].tolist(), found["labels"].tolist(), strict=True)
    results: list[Result] = [
        {
            "image_id": image_id,
            "category_id": category_ids[label - 1],
            "bbox": [round(value, 2) for value in box],
            "score": round(score, 5),
        }
        for box, score, label in rows
    ]
    if "masks" in found:
        for each, mask in zip(results, paste_masks(found["masks"], found["mask_boxes"], size), strict=True):
            encoded = encode_mask(mask)
            each["segmentation"] = {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}
    if "keypoints" in found:
        for each, points in zip(results, found["keypoints"].double().flatten(1).tolist(), strict=True):
            each["keypoints"] = [round(value, 2) for value in points]
    return results


def split_results(detect: Detect, batches: Iterable[Batch], split: CocoSplit, compute: Compute) -> Detected:
    """What is found in a whole split."""
    category_ids = [category_id for category_id, _ in split.categories]
    detected = Detected([], {})
    for batch in batches:
        for sample, found in detect_batch(detect, batch, compute):
            image_id = int(split.image_ids[sample.index])
            detected.results.extend(coco_results(found, image_id, category_ids, sample.original))
        detected.unreadable.update(batch.unreadable)
    return detected


def view_results(
    detector: Model,
    split: CocoSplit,
    view: View,
    compute: Compute,
    workers: int,
    resolution: Resolution | None = None,
    batch: int = EVALUATION_BATCH,
    overlap: float | None = None,
    losses: SplitLosses | None = None,
) -> Detected:
    """What one view of a detector finds in a split; it reads just the pixels that this view needs.

    Each of several processes looks at its share of the batches; `put_together` makes one of what all have found.

    Args:
        overlap: IoU with a surer box of any class above which one is left out. None counts both, as COCO does.
        losses: adds up those of the same view, of what is computed anyway.

    Raises:
        DataError: too many images cannot be read.
    """

    def detect(views: Mapping[int, Sequence[Tensor]]) -> Sequence[Mapping[str, Tensor]]:
        found = detector.detect(views, view) if losses is None else losses.detect(views)
        return [one_class_a_box(each, overlap) for each in found]

    ks, phase = detector.spec.ks_of(view), detector.spec.phase
    size_of = resolution or detector.resolution
    images = EvaluationSet(split, size_of, ks, phase=phase, labelled=losses is not None)
    detector.eval()
    batches = evaluation_loader(images, batch, workers, (rank(), size()), compute.pins)
    batches = batches if losses is None else losses.following(batches)
    detected = split_results(detect, batches, split, compute)
    if size() == 1:
        tolerate(detected.unreadable, split)
    return detected


def put_together(found: Detected | None, split: CocoSplit) -> Detected | None:
    """What all processes have found in their shares, or None where one of them was cut short (gave None).

    The results are with the first process alone, in the order that a single one gives them.

    Raises:
        DataError: too many images cannot be read.
    """
    unreadable = gather(None if found is None else found.unreadable)
    if found is None or None in unreadable:
        return None
    detected = Detected([], {index: reason for each in unreadable if each for index, reason in each.items()})
    tolerate(detected.unreadable, split)
    place = {image_id: index for index, image_id in enumerate(split.image_ids.tolist())}
    detected.results.extend(result for results in hand_in(found.results) for result in results)
    detected.results.sort(key=lambda result: place[result["image_id"]])
    return detected
