"""The correction of what in an annotation file contradicts itself, where it is known what is meant."""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.agreement.box_agreement import Said
from msad_cli.data.agreement.contradictions import contradictions
from msad_cli.data.agreement.sizes import resized_images
from msad_cli.data.annotations.keypoint_scheme import with_keypoints
from msad_cli.data.annotations.records import Records, examine
from msad_cli.data.images.split_images import SplitImages

Document = dict[str, Any]
Factors = NDArray[np.float64]
"""What x and y are to be multiplied by."""


def corrected(document: Document, records: Records, seen: SplitImages, done: Counter[str]) -> Document:
    """A document whose systematic faults are put right; the same records in the same order.

    Args:
        document: of an annotation file, with whole numbers as ids.
        records: of the document.
        seen: the files of its images.
        done: takes how often each thing was done.
    """
    file, (folder, root) = records.file, records.sought
    turned = seen.stated_turned
    resized = resized_images(records, seen.sizes, turned)
    if resized.problems:
        document = _scaled(document, records, resized.images, seen.sizes, done)
        records = examine(document, file, folder, root=root)
    frames = np.where(turned[:, None] | (seen.sizes <= 0), 0, seen.sizes)
    document = _applied(document, records, contradictions(records, frames), done)
    if with_keypoints(document["categories"]):
        posed = examine(document, file, folder, task="keypoints", root=root)
        if not any(each.fatal for each in posed.problems):
            document = _applied(document, posed, contradictions(posed, frames), done)
    return document


def _scaled(
    document: Document, records: Records, resized: NDArray[np.bool_], sizes: NDArray[np.int64], done: Counter[str]
) -> Document:
    """Annotations of resized images in pixels of the files, whose sizes the images then state."""
    places = {image: i for i, image in enumerate(records.image_ids.tolist()) if resized[i]}
    images = [
        {**each, "height": int(sizes[i][0]), "width": int(sizes[i][1])}
        if (i := places.get(each["id"])) is not None
        else each
        for each in document["images"]
    ]
    factors = np.divide(sizes, records.sizes, out=np.ones(sizes.shape), where=records.sizes > 0)[:, ::-1]
    annotations = list(document["annotations"])
    of = records.annotations
    for row, image, box in zip(of.rows.tolist(), of.images.tolist(), of.boxes, strict=True):
        if resized[image]:
            each, factor = annotations[row], factors[image]
            scaled = {"bbox": (box * np.tile(factor, 2)).tolist(), **_outline_times(each, factor)}
            if isinstance(each.get("area"), int | float):
                scaled["area"] = each["area"] * float(factor.prod())
            if isinstance(each.get("keypoints"), list):
                scaled["keypoints"] = _times(each["keypoints"], factor, 3)
            annotations[row] = {**each, **scaled}
            done["annotations scaled to the files of their images"] += 1
    return {**document, "images": images, "annotations": annotations}


def _applied(document: Document, records: Records, said: tuple[Said, ...], done: Counter[str]) -> Document:
    annotations = list(document["annotations"])
    of = records.annotations
    for each in said:
        if not each.problem.fatal or (each.boxes is None and each.factors is None and each.points is None):
            continue
        for j in np.flatnonzero(each.rows).tolist():
            annotation = annotations[of.rows[j]]
            meant: Document = {}
            if each.boxes is not None:
                box = each.boxes[j].tolist()
                meant = {"bbox": box, "area": min(float(of.areas[j]), max(0.0, box[2] * box[3]))}
            if each.factors is not None:
                meant = _outline_times(annotation, each.factors[j])
            if each.points is not None:
                labelled = of.keypoints[j, :, 2:] > 0
                meant = {"keypoints": np.where(labelled, each.points[j], 0).ravel().tolist()}
            annotations[of.rows[j]] = {**annotation, **meant}
        done[f"{each.problem.what}: put right"] += int(each.rows.sum())
    return {**document, "annotations": annotations}


def _outline_times(annotation: Document, factor: Factors) -> Document:
    """The field of a polygon with its points multiplied; nothing for an RLE, whose grid covers the image as it is."""
    rings = annotation.get("segmentation")
    if not isinstance(rings, list) or not all(isinstance(ring, list) for ring in rings):
        return {}
    return {"segmentation": [_times(ring, factor, 2) for ring in rings]}


def _times(values: list[Any], factor: Factors, every: int) -> list[Any]:
    """x, y, … with x and y multiplied, of `every` numbers a point."""
    return [
        value * float(factor[i % every]) if i % every < 2 and type(value) in (int, float) else value
        for i, value in enumerate(values)
    ]
