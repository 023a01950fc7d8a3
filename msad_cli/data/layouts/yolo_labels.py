"""The labels of a YOLO set: a text file an image, a row an object.

A row is `class x y width height` (centre and sides), `class x y x y x y …` (a segmentation), or, where data.yaml has a
`kpt_shape`, a box and its keypoints. Coordinates are shares of the image's width and height.
"""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.annotations.values import shown, whole_number
from msad_cli.data.layouts.cache import DECIMALS, read_text
from msad_cli.errors import DataError

FARTHEST_SHARE = 2.0
"""Shares of an image's side. What lies beyond was not divided by it."""
BOX = 4
"""Numbers of a box."""


def read_labels(
    file: Path, size: tuple[int, int], classes: Collection[int], keypoints: tuple[int, int]
) -> list[dict[str, Any]]:
    """The objects of an image as COCO annotations without ids; none where there is no file.

    Args:
        file: of labels.
        size: width and height of the image in pixels.
        classes: numbers that are known.
        keypoints: how many each object has, and of how many numbers (2 or 3) each of them is; zeros for none.

    Raises:
        DataError: a row is malformed; names file and line.
    """
    if not file.exists():
        return []
    found = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if words := line.split():
            try:
                found.append(_read_row(words, size, classes, keypoints))
            except ValueError as error:
                raise DataError(
                    f"{file}, line {number}: {error}", "correct the line, or data.yaml", code="label-malformed"
                ) from None
    return found


def _read_row(
    words: Sequence[str], size: tuple[int, int], classes: Collection[int], keypoints: tuple[int, int]
) -> dict[str, Any]:
    """An object.

    Raises:
        ValueError: what is wrong with the row.
    """
    category = whole_number(float(words[0])) if _is_number(words[0]) else None
    if category not in classes:
        known = ", ".join(map(str, list(classes)[:20]))
        raise ValueError(f"class {shown(words[0])}, known are {known}")
    for word in words[1:]:
        if not _is_number(word):
            raise ValueError(f"{shown(word)} is no number")
    values = np.array([float(word) for word in words[1:]])
    count, numbers = keypoints
    box, others = values[:BOX], values[BOX:]
    points = others.reshape(count, -1) if count and len(others) == count * numbers else None
    ring = values.reshape(-1, 2) if not count and len(values) > BOX and len(values) % 2 == 0 else None
    if len(values) != BOX + count * numbers and ring is None:
        wanted = (
            f"a pose of kpt_shape [{count}, {numbers}] has {1 + BOX + count * numbers}"
            if count
            else "a box has 5, a segmentation 7, 9, 11, …"
        )
        raise ValueError(f"{len(words)} columns, {wanted}")
    shares = values if points is None else np.concatenate([box, points[:, :2].ravel()])
    if np.abs(shares).max() > FARTHEST_SHARE:
        raise ValueError(f"{shares[np.abs(shares).argmax()]:g} is no share of the image's width or height")
    if ring is not None:
        return {"category_id": category, **_segmented(ring * size)}
    x, y, width, height = (box * (*size, *size)).tolist()
    bbox = [round(each, DECIMALS) for each in (x - width / 2, y - height / 2, width, height)]
    own = {} if points is None else _posed(points, size)
    return {"category_id": category, "bbox": bbox, "area": bbox[2] * bbox[3], **own}


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _segmented(ring: NDArray[np.float64]) -> dict[str, Any]:
    """Segmentation, box and area of a ring (P, 2) in pixels."""
    (left, top), (right, bottom) = ring.min(axis=0), ring.max(axis=0)
    x, y = ring.T
    area = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    box = [left, top, right - left, bottom - top]
    return {
        "bbox": [round(float(each), DECIMALS) for each in box],
        "area": round(area, DECIMALS),
        "segmentation": [ring.round(DECIMALS).ravel().tolist()],
    }


def _posed(points: NDArray[np.float64], size: tuple[int, int]) -> dict[str, Any]:
    """Keypoints (K, 2 or 3) in pixels and as COCO has them. Of two numbers, none or below 0 is a point unlabelled."""
    places = points[:, :2]
    seen = (
        points[:, 2]
        if points.shape[1] == 3
        else np.where((places.min(axis=1) >= 0) & (places.max(axis=1) > 0), 2.0, 0.0)
    )
    labelled = np.asarray(seen > 0)
    table = np.column_stack([(places * size).round(DECIMALS), seen]) * labelled.reshape(-1, 1)
    return {"keypoints": table.ravel().tolist(), "num_keypoints": int(labelled.sum())}
