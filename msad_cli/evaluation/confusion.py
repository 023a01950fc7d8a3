"""The confusion matrix at IoU 0.5: true classes against predicted ones, with background for a class too."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

IOU = 0.5
Confusion = Counter[tuple[int | None, int | None]]
"""How many, by true and predicted category id; None is background: an object missed, or a detection of none."""


def confusion(truth: Mapping[str, Any], results: Iterable[Mapping[str, Any]], threshold: float) -> Confusion:
    """Counts boxes of at least a score against a COCO document.

    First each box, the surest first, takes the object of its own class that it covers best, as COCOeval has it; boxes
    that lie in a crowd of their class do not count. Then what is left takes what is left of any class. So the diagonal
    holds COCOeval's hits.
    """
    objects: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    found: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for each in truth["annotations"]:
        objects[each["image_id"]].append(each)
    for each in results:
        if each["score"] >= threshold:
            found[each["image_id"]].append(each)
    counts: Confusion = Counter()
    for image in objects.keys() | found.keys():
        counts += _of_image(objects[image], sorted(found[image], key=lambda each: -each["score"]))
    return counts


def _of_image(objects: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> Confusion:
    single = [each for each in objects if not each.get("iscrowd")]
    crowds = [each for each in objects if each.get("iscrowd")]
    true, predicted = _classes(single), _classes(found)
    overlap, covered = _overlaps(found, single)[0], _overlaps(found, crowds)[1]
    alike = predicted[:, None] == true
    in_crowd = ((covered >= IOU) & (predicted[:, None] == _classes(crowds))).any(axis=1)
    counts: Confusion = Counter()
    missed, wrong = set(range(len(single))), []
    for row in range(len(found)):
        column = _best(np.where(alike[row], overlap[row], 0.0), missed)
        if column is not None:
            missed.remove(column)
            counts[int(true[column]), int(predicted[row])] += 1
        elif not in_crowd[row]:
            wrong.append(row)
    for row in wrong:
        column = _best(overlap[row], missed)
        if column is None:
            counts[None, int(predicted[row])] += 1
        else:
            missed.remove(column)
            counts[int(true[column]), int(predicted[row])] += 1
    counts.update((int(true[column]), None) for column in missed)
    return counts


def _best(overlap: NDArray[np.float64], free: Iterable[int]) -> int | None:
    """The free object that is covered best, if it is covered well enough."""
    column = max(free, key=lambda column: overlap[column], default=None)
    return None if column is None or overlap[column] < IOU else column


def _classes(boxes: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
    return np.array([each["category_id"] for each in boxes], dtype=np.int64)


def _overlaps(
    found: Sequence[Mapping[str, Any]], objects: Sequence[Mapping[str, Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(D, G) each: IoU of boxes, and which share of the found one lies in the other."""
    one = np.array([each["bbox"] for each in found], dtype=np.float64).reshape(-1, 1, 4)
    other = np.array([each["bbox"] for each in objects], dtype=np.float64).reshape(1, -1, 4)
    ends = np.minimum(one[..., :2] + one[..., 2:], other[..., :2] + other[..., 2:])
    shared = (ends - np.maximum(one[..., :2], other[..., :2])).clip(min=0).prod(axis=-1)
    own = one[..., 2:].prod(axis=-1)
    together = own + other[..., 2:].prod(axis=-1) - shared
    return shared / together.clip(min=1e-9), shared / own.clip(min=1e-9)
