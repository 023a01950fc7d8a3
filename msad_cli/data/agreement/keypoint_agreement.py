"""Keypoints against the boxes of their objects."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from msad_cli.data.agreement.box_agreement import MOST, SYSTEMATIC, Compared, Rows, Said, counted
from msad_cli.data.agreement.forms import Table
from msad_cli.data.annotations import problems as kinds

NEAR = 1.0
"""Pixels around a box that a keypoint of its object may have: tools round."""
FAR, FAR_SHARE = 2.0, 0.25
"""The same where hidden keypoints of cut objects are allowed for, and share of the box's longer side."""
HALF = 0.5
REPAIR = "msad data check FILE --fix -o NEW writes them in pixels of the image"


@dataclass(frozen=True)
class PointForm:
    """A way to write keypoints.

    Attributes:
        words: what the numbers are.
        read: keypoints (A, K, 2) as they were read, boxes x, y, width, height (A, 4) and (width, height) of images
            (A, 2) to keypoints in pixels.
        left: share of the keypoints that may still lie outside of their boxes.
        exact: whether `read` gives the very points, not only about where they lie.
    """

    words: str
    read: Callable[[Table, Table, Table], Table]
    left: float = 0.1
    exact: bool = True


def _in_pixels(sides: Table) -> Table:
    return sides[:, None, :]


FORMS = (
    PointForm("y, x: the axes exchanged", lambda points, _, __: points[..., ::-1]),
    # Of points drawn at random some tenth lies in the box: where half do, that is no accident.
    PointForm("shares (0 … 1) of the image's sides", lambda points, _, sides: points * _in_pixels(sides), HALF),
    PointForm("percent of the image's sides", lambda points, _, sides: points * _in_pixels(sides) / 100, HALF),
    PointForm("pixels from the corner of their box", lambda points, boxes, _: points + boxes[:, None, :2]),
    PointForm(
        "shares (0 … 1) of the sides of their box",
        lambda points, boxes, _: boxes[:, None, :2] + points * boxes[:, None, 2:],
    ),
)


def keypoint_contradictions(of: Compared) -> list[Said]:
    """What can be said against the keypoints of objects whose boxes have an extent; none but where they are read."""
    points, boxes = of.records.annotations.keypoints, of.boxes
    labelled = points[..., 2] > 0
    tested = of.rows & labelled.any(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    if not tested.any():
        return []
    numbers = labelled.sum(axis=1).clip(1)
    outside = labelled & _outside(points[..., :2], boxes, np.full(len(boxes), NEAR))
    off = tested & (outside.sum(axis=1) > HALF * numbers)

    def words(row: int) -> str:
        x, y = points[row][outside[row]][0, :2]
        count = f"{outside[row].sum()} of {labelled[row].sum()} keypoints"
        return f"{of.records.box_words(row)}: {count} lie outside of it, such as {x:g}, {y:g}"

    if off.sum() >= max(2, SYSTEMATIC * tested.sum()):
        for form in (*FORMS, *_scaled(of, off)):
            read = form.read(points[..., :2], boxes, of.sides)
            still = labelled & _outside(read, boxes, np.full(len(boxes), NEAR))
            if form.words.startswith("shares") and np.abs(points[off][labelled[off]][:, :2]).max() > 1:
                continue
            if still[off].sum() <= form.left * outside[off].sum():
                rows = tested & outside.any(axis=1)
                what = f"{kinds.POINTS_OFF_BOX.what}; they look like {form.words}"
                advice = REPAIR if form.exact else "write them in pixels of their images"
                kind = replace(kinds.POINTS_OFF_BOX, what=what, outcome="refused", advice=advice, fatal=True)
                meant = np.concatenate([read, points[..., 2:]], axis=2) if form.exact else None
                return [Said(counted(kind, rows, words), rows, points=meant)]
    wide = labelled & _outside(points[..., :2], boxes, FAR + FAR_SHARE * boxes[:, 2:].max(axis=1))
    rows = tested & (wide.sum(axis=1) > HALF * numbers)
    if not rows.any():
        return []
    kind = kinds.POINTS_OFF_BOX
    if rows.sum() >= max(2, MOST * tested.sum()):
        kind = replace(kind, outcome="refused", advice="correct the keypoints or the boxes", fatal=True)
    return [Said(counted(kind, rows, words), rows)]


def _outside(points: Table, boxes: Table, margin: Table) -> Rows:
    """(A, K) whether points lie farther than a margin (A,) from boxes x, y, width, height."""
    low, high = boxes[:, None, :2], boxes[:, None, :2] + boxes[:, None, 2:]
    return np.asarray((np.maximum(low - points, points - high) > margin[:, None, None]).any(axis=2))


def _scaled(of: Compared, off: Rows) -> list[PointForm]:
    """Keypoints of an image of another size, if all are by one factor away."""
    points = of.records.annotations.keypoints[off]
    seen = points[..., 2:] > 0
    middle = (points[..., :2] * seen).sum(axis=1) / seen.sum(axis=1).clip(1)
    centres = of.boxes[off, :2] + of.boxes[off, 2:] / 2
    factors = np.median(centres, axis=0) / np.maximum(np.median(middle, axis=0), 1e-9)
    words = f"pixels of an image of about {1 / max(factors[0], 1e-9):.2g} times the size"
    return [PointForm(words, lambda points, _, __: points * factors, exact=False)]
