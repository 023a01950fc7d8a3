"""Which boxes can be learnt from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.problem_tally import Problem, Tally
from msad_cli.data.annotations.records import Records

LARGEST_COORDINATE = 1e9
"""Pixels. A box beyond this is an error, not a place in an image."""
LEAST_CUT = 1.0
"""Pixels by which a box may stick out of its image before that is worth a word: segmentations are rounded."""


@dataclass(frozen=True)
class Judged:
    """What became of the boxes.

    Attributes:
        usable: (A,) bool, the boxes to learn from: neither crowd regions nor bad, nor without the mask or the keypoints
            that the task asks for.
        bad: (A,) bool, the boxes that are none, lie outside, or repeat another one.
        problems: the rest, by kind; crowd regions with a bad box included.
    """

    usable: NDArray[np.bool_]
    bad: NDArray[np.bool_]
    problems: tuple[Problem, ...]


def judge_boxes(records: Records, sizes: NDArray[np.int64] | None = None) -> Judged:
    """Tells the boxes to learn from.

    Args:
        records: of one annotation file.
        sizes: (I, 2) true height and width of each image in pixels, 0 where unknown. Without it a box is only
            outside where it ends at 0 or before: what an annotation file says of an image's size may be wrong, and
            the transform cuts every box to the image itself.
    """
    of = records.annotations
    x, y, w, h = of.boxes.T
    finite = np.isfinite(of.boxes).all(axis=1)
    with np.errstate(invalid="ignore"):
        near = finite & (np.abs(of.boxes) < LARGEST_COORDINATE).all(axis=1)
        solid = near & (x + w > x) & (y + h > y)  # not w > 0: 1e-300 is lost in any corner
        height, width = sizes[of.images].T if sizes is not None else np.zeros((2, len(of)), dtype=np.int64)
        known = (height > 0) & (width > 0)
        outside = solid & ((x + w <= 0) | (y + h <= 0) | (known & ((x >= width) | (y >= height))))
        over = np.maximum.reduce([-x, -y, np.where(known, x + w - width, 0), np.where(known, y + h - height, 0)])
        cut = solid & ~outside & (over > LEAST_CUT)
    good = solid & ~outside
    repeated = _repeated(records, good & ~of.crowd)
    tally = Tally()
    for kind, found in (
        (kinds.NOT_FINITE, ~finite),
        (kinds.TOO_FAR, finite & ~near),
        (kinds.NO_EXTENT, near & ~solid),
        (kinds.OUTSIDE, outside),
        (kinds.CUT, cut),
        (kinds.REPEATED_BOX, repeated),
    ):
        tally.add_all(kind, np.flatnonzero(found).tolist(), records.box_words)
    return Judged(good & ~repeated & ~of.crowd & of.complete, ~good | repeated, tally.problems())


def _repeated(records: Records, usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(A,) bool: boxes equal to an earlier one of the same image and class."""
    of = records.annotations
    rows = np.flatnonzero(usable)
    table = np.column_stack([of.images[rows], of.labels[rows], of.boxes[rows]])
    order = np.lexsort(table.T[::-1])  # stable: of equal rows the first of the file comes first
    ordered = table[order]
    again = np.zeros(len(of), dtype=bool)
    again[rows[order[1:]]] = (ordered[1:] == ordered[:-1]).all(axis=1)
    return again
