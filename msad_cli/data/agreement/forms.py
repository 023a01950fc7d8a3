"""The forms in which tools write boxes: what four numbers may be, if they are not what the file's layout says."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]
"""A row of numbers for each annotation."""
INSIDE = 1.5
"""Pixels by which a box may stick out of its image and still count as inside: tools round."""
OFF, OFF_SHARE = 2.0, 0.1
"""Two extents disagree where a side lies so many pixels, and that share of the box's longer side, away."""


@dataclass(frozen=True)
class Form:
    """A way to write a box.

    Attributes:
        words: what the four numbers are.
        read: boxes as they were read (A, 4) and (width, height) of their images (A, 2) to the boxes that are meant;
            both x, y, width, height.
    """

    words: str
    read: Callable[[Table, Table], Table]


def _corners(box: Table, _: Table) -> Table:
    return np.concatenate([box[:, :2], box[:, 2:] - box[:, :2]], axis=1)


def _centre(box: Table, _: Table) -> Table:
    return np.concatenate([box[:, :2] - box[:, 2:] / 2, box[:, 2:]], axis=1)


def _exchanged(box: Table, _: Table) -> Table:
    return box[:, [1, 0, 3, 2]]


def _corner_for_centre(box: Table, _: Table) -> Table:
    return np.concatenate([box[:, :2] + box[:, 2:] / 2, box[:, 2:]], axis=1)


def _sides_for_corner(box: Table, _: Table) -> Table:
    return np.concatenate([box[:, :2], box[:, 2:] + box[:, :2]], axis=1)


def _divided(by: float, inner: Callable[[Table, Table], Table] | None = None) -> Callable[[Table, Table], Table]:
    def read(box: Table, sides: Table) -> Table:
        scaled = box * np.tile(sides, 2) / by
        return inner(scaled, sides) if inner else scaled

    return read


SHARES = (
    Form("shares (0 … 1) of the image's sides", _divided(1)),
    Form("corners x0, y0, x1, y1 in shares (0 … 1) of the image's sides", _divided(1, _corners)),
    Form("centre x, y, width, height in shares (0 … 1) of the image's sides", _divided(1, _centre)),
    Form(
        "corners in shares (0 … 1) of the image's sides, not in pixels from 1",
        lambda box, sides: (box + np.array([1, 1, -1, -1])) * np.tile(sides, 2),
    ),
)
"""The last one's are of Pascal VOC, whose corners count from 1."""
PERCENT = (
    Form("percent of the image's sides", _divided(100)),
    Form("corners x0, y0, x1, y1 in percent of the image's sides", _divided(100, _corners)),
    Form("centre x, y, width, height in percent of the image's sides", _divided(100, _centre)),
)
CORNERS = Form("corners x0, y0, x1, y1", _corners)
PIXELS = (
    CORNERS,
    Form("centre x, centre y, width, height", _centre),
    Form("y, x, height, width: the axes exchanged", _exchanged),
    Form("corners y0, x0, y1, x1", lambda box, sides: _corners(_exchanged(box, sides), sides)),
    Form("width and height in place of xmax and ymax", _sides_for_corner),
    Form("left and top in place of the centre", _corner_for_centre),
    Form(
        "corners x0, y0, x1, y1 in place of centre and sides",
        lambda box, sides: _corners(_corner_for_centre(box, sides), sides),
    ),
)
"""Of boxes in pixels; the last three are those of other layouts, which count from other points."""
FORMS = (*PIXELS, *SHARES, *PERCENT)


def ends(boxes: Table) -> Table:
    """x0, y0, x1, y1 of boxes x, y, width, height."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def near(boxes: Table, extents: Table) -> NDArray[np.bool_]:
    """(A,) whether boxes x, y, width, height are those of extents x0, y0, x1, y1, as far as tools round."""
    longer = boxes[:, 2:].max(axis=1, initial=0).clip(0)
    with np.errstate(invalid="ignore"):
        return np.asarray(gaps(boxes, extents) <= OFF + OFF_SHARE * longer)


def gaps(boxes: Table, extents: Table) -> Table:
    """(A,) by how much the farthest sides of boxes and extents differ."""
    return np.asarray(np.abs(ends(boxes) - extents).max(axis=1, initial=0))


def nearer(one: Table, other: Table, extents: Table) -> NDArray[np.bool_]:
    """(A,) whether boxes are nearer to extents than others are, by more than a pixel."""
    with np.errstate(invalid="ignore"):
        return np.asarray(gaps(one, extents) + 1 < gaps(other, extents))


def inside(boxes: Table, sides: Table) -> NDArray[np.bool_]:
    """(A,) whether boxes have an extent and lie in their images of these sides; none is, of which nobody knows them."""
    corners = ends(boxes)
    low, high = corners[:, :2], corners[:, 2:]
    return np.asarray(((boxes[:, 2:] > 0) & (low >= -INSIDE) & (high <= sides + INSIDE) & (sides > 0)).all(axis=1))
