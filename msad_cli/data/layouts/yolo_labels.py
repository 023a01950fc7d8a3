"""The labels of a YOLO set: a text file an image, a row an object.

A row is `class x y width height` (centre and sides), `class x y x y x y …` (a segmentation), or, where data.yaml has a
`kpt_shape`, a box and its keypoints. Coordinates are shares of the image's width and height. Behind them may stand the
number of a track.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.annotations.problem_tally import Tally
from msad_cli.data.annotations.values import shown, whole_number
from msad_cli.data.layouts.cache import DECIMALS, read_text, report_bad

FARTHEST_SHARE = 2.0
"""Shares of an image's side. What lies beyond was not divided by it."""
BOX = 4
"""Numbers of a box."""
FEWEST, ROUNDED = 3, 0.004
"""Points of a polygon; shares of a side by which its box may differ: two pixels of a small image."""
MANY = 4
"""Every third number of a polygon is not by chance 0, 1 or 2 so often."""

Object = dict[str, Any]
"""A COCO annotation without ids."""


@dataclass
class Labels:
    """What was read of the label files of a split.

    Attributes:
        rows: how many there are.
        bad: what is wrong with rows that cannot be read, in words.
        tracks: objects with a whole number behind them.
        scores: places of rows with another number behind them, in words.
    """

    rows: int = 0
    bad: list[str] = field(default_factory=list)
    tracks: list[tuple[int, str]] = field(default_factory=list)
    scores: list[str] = field(default_factory=list)

    def report(self, tally: Tally) -> tuple[str, ...]:
        """Counts what cannot be read, and says what was left out of what can."""
        if self.scores:  # then whole numbers are scores too, of 1
            self.bad += [*self.scores, *(f"{place}: {SCORE}" for _, place in self.tracks)]
        report_bad(self.bad, self.rows, tally)
        if self.scores or not self.tracks:
            return ()
        return (f"{len(self.tracks)} rows have a whole number in a last column of their own: track ids, left out",)


SCORE = "the number behind the object looks like a score: these are predictions, no labels"


def read_labels(
    file: Path, size: tuple[int, int], classes: Collection[int], keypoints: tuple[int, int], labels: Labels
) -> list[Object]:
    """The objects of an image as COCO annotations without ids; none where there is no file.

    Args:
        file: of labels.
        size: width and height of the image in pixels.
        classes: numbers that are known.
        keypoints: how many each object has, and of how many numbers (2 or 3) each of them is; zeros for none.
        labels: takes the rows that are malformed, and tracks.

    Raises:
        DataError: the file is no text.
    """
    found = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not (words := line.split()):
            continue
        labels.rows += 1
        try:
            read, behind = _read_row(words, size, classes, keypoints)
        except ValueError as error:
            labels.bad.append(f"{file}, line {number}: {error}")
            continue
        found.append(read)
        if behind is not None and whole_number(behind) is None:
            labels.scores.append(f"{file}, line {number}: {len(words)} columns, {SCORE}")
        elif behind is not None:
            labels.tracks.append((number, f"{file}, line {number}"))
    return found


def _read_row(
    words: Sequence[str], size: tuple[int, int], classes: Collection[int], keypoints: tuple[int, int]
) -> tuple[Object, float | None]:
    """An object, and the number behind it.

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
    length = BOX + count * numbers
    # A box and a pose have as many numbers as they have, a segmentation has pairs of them; one more is another thing.
    behind = len(values) == length + 1 or (not count and len(values) > BOX and len(values) % 2 == 1)
    if not count and _is_posed(values, behind):
        raise ValueError(f"{len(words)} columns, which look like a box and keypoints; data.yaml has no kpt_shape")
    if not count and _is_framed(values):
        raise ValueError(f"{len(words)} columns, which look like a box and the segmentation in it; leave the box out")
    own = values[:-1] if behind else values
    ring = own.reshape(-1, 2) if not count and len(own) > BOX and len(own) % 2 == 0 else None
    if len(own) != length and ring is None:
        wanted = (
            f"a pose of kpt_shape [{count}, {numbers}] has {1 + length}"
            if count
            else "a box has 5, a segmentation 7, 9, 11, …"
        )
        raise ValueError(f"{len(words)} columns, {wanted}")
    box, points = own[:BOX], own[BOX:].reshape(count, -1) if count else None
    shares = own if points is None else np.concatenate([box, points[:, :2].ravel()])
    if np.abs(shares).max() > FARTHEST_SHARE:
        raise ValueError(f"{shares[np.abs(shares).argmax()]:g} is no share of the image's width or height")
    last = float(values[-1]) if behind else None
    if ring is not None:
        return {"category_id": category, **_segmented(ring * size)}, last
    x, y, width, height = (box * (*size, *size)).tolist()
    bbox = [round(each, DECIMALS) for each in (x - width / 2, y - height / 2, width, height)]
    posed = {} if points is None else _posed(points, size)
    return {"category_id": category, "bbox": bbox, "area": bbox[2] * bbox[3], **posed}, last


def _is_posed(values: NDArray[np.float64], certain: bool) -> bool:
    """Whether numbers are a box and keypoints with visibilities; of what may be a polygon only if these are many."""
    seen = values[BOX + 2 :: 3]
    enough = 1 if certain or (seen > 1).any() else MANY  # no place in an image is 2
    return (len(values) - BOX) % 3 == 0 and len(seen) >= enough and bool(np.isin(seen, (0, 1, 2)).all())


def _is_framed(values: NDArray[np.float64]) -> bool:
    """Whether numbers are a box and a polygon that fills it: no polygon has such points by chance."""
    if len(values) < BOX + 2 * FEWEST or len(values) % 2:
        return False
    (x, y, width, height), points = values[:BOX], values[BOX:].reshape(-1, 2)
    box = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    extent = np.concatenate([points.min(axis=0), points.max(axis=0)])
    large = (extent[2:] - extent[:2] > 4 * ROUNDED).all()  # among smaller ones, chance would do
    return bool(large and np.abs(box - extent).max() < ROUNDED)


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
