"""The ground truth of a split as COCOeval wants it: the user's own annotation file, with what that leaves open."""

from typing import Any

import numpy as np

from msad_cli.data.agreement.as_meant import as_meant
from msad_cli.data.agreement.category_names import with_known_ids
from msad_cli.data.annotations.problem_tally import Tally
from msad_cli.data.annotations.records import Records, examine, read_document, root_categories
from msad_cli.data.annotations.segmentation import encode, pixels_inside, read_segmentation
from msad_cli.data.annotations.split import CocoSplit
from msad_cli.data.annotations.values import is_area, whole_number
from msad_cli.data.images.split_images import look_at_images

IDENTIFIED = ("images", "categories")
"""The lists of a COCO document whose ids others refer to."""


def ground_truth(split: CocoSplit) -> dict[str, Any]:
    """The split's annotation file as COCOeval wants it: ids as whole numbers, `area` and `iscrowd` filled in.

    Boxes that training drops (without extent, repeated) stay: the numbers are those of the user's own file. Where masks
    are the task, each is drawn at its image's size; an annotation without one has no `segmentation`. Where keypoints
    are, an annotation without any has zeros, which COCOeval ignores.
    """
    document = as_meant(read_document(split.file), Tally())
    document = with_known_ids(document, split.categories, root_categories(document), Tally())
    folder, root = split.sought
    records = examine(document, split.file, folder, split.categories, split.task, split.scheme.names, root)
    of = records.annotations
    finite = np.isfinite(of.boxes).all(axis=1)  # COCOeval takes a box of NaN for a match of every detection
    category_ids = np.array([category_id for category_id, _ in records.categories], dtype=np.int64)
    raw = [document["annotations"][row] for row in of.rows[finite].tolist()]
    annotations = [
        # COCOeval takes a match with an annotation of id 0 for none, and many files count from 0.
        {**each, "id": number, "image_id": image, "category_id": category}
        | {"bbox": box, "area": area, "iscrowd": int(crowd)}
        for number, (each, image, category, box, area, crowd) in enumerate(
            zip(
                raw,
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
    truth = {**document, **own, "annotations": annotations}
    if split.task == "masks":
        _draw_masks(truth, records, [is_area(each.get("area")) for each in raw])
    if split.task == "keypoints":
        truth["categories"] = [each for each in own["categories"] if each["id"] in dict(records.categories)]
        for each, points in zip(annotations, of.keypoints[finite], strict=True):
            each |= {"keypoints": points.ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
    return truth


def _draw_masks(truth: dict[str, Any], records: Records, has_area: list[bool]) -> None:
    """Gives every image its size, and every annotation its mask, as RLE of that size, and its area.

    The size is that of the image's file, whatever the annotations say: detections have it, and COCOeval compares no
    masks of different sizes.
    """
    sizes = look_at_images(records).sizes.clip(1).tolist()
    size = {image: (height, width) for image, (height, width) in zip(records.image_ids.tolist(), sizes, strict=True)}
    for each in truth["images"]:
        each["height"], each["width"] = size.get(each["id"], (1, 1))
    for each, stated in zip(truth["annotations"], has_area, strict=True):
        segmentation = read_segmentation(each.pop("segmentation", None))
        if segmentation is not None:
            each["segmentation"] = encode(segmentation, size[each["image_id"]])
            each["area"] = each["area"] if stated else pixels_inside(each["segmentation"])
