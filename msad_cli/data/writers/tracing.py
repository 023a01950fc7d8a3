"""Segmentations as a single ring of points, which is all that some formats hold of a mask."""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.annotations.segmentation import Segmentation, decode

Ring = NDArray[np.float64]


def one_ring(segmentation: Segmentation) -> Ring:
    """(P, 2) x, y in pixels of the original: the segmentation's pieces and holes, one after the other.

    The way from the first piece to each other one is gone there and back, so that it encloses nothing. Filled by the
    even-odd rule, as pycocotools and OpenCV do, the ring is the mask again, unless polygons of one object overlap.
    """
    rings = (
        traced(decode(segmentation))
        if isinstance(segmentation, dict)
        else [each.astype(np.float64) for each in segmentation]
    )
    first, *others = rings
    pieces = [first]
    for each in others:
        pieces += [first[:1], each, each[:1]]
    return np.concatenate(pieces + [first[:1]] * bool(others))


def stretched(ring: Ring, box: Ring) -> Ring:
    """A ring whose outermost points lie on the sides of a box, corners x, y (2, 2): tracing goes by whole pixels."""
    outermost = np.where(ring == ring.max(axis=0), box[1], ring.clip(*box))
    return np.where(ring == ring.min(axis=0), box[0], outermost)


def traced(mask: NDArray[np.uint8]) -> list[Ring]:
    """The rings (P, 2) along the sides of pixels that part a mask (height, width) from what is outside and in holes."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    inside = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1] > 0, 1)
    after = _sides(inside)
    rings = []
    while after:
        corner = start = next(iter(after))
        ring = []
        while True:
            ring.append(corner)
            ends = after[corner]
            following = ends.pop()
            if not ends:
                del after[corner]
            corner = following
            if corner == start:
                break
        rings.append(_turning_points(np.array(ring)) + np.array([left - 1.0, top - 1.0]))
    return rings


def _sides(inside: NDArray[np.bool_]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """From each corner x, y of pixels the corners one side further, along all sides with the mask on the right."""
    after: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    # Where the neighbour lies whom the side parts from the pixel, and the side's ends, all as x, y.
    for (right, down), begin, end in (
        ((0, -1), (0, 0), (1, 0)),
        ((1, 0), (1, 0), (1, 1)),
        ((0, 1), (1, 1), (0, 1)),
        ((-1, 0), (0, 1), (0, 0)),
    ):
        y, x = np.nonzero(inside & ~np.roll(inside, (-down, -right), axis=(0, 1)))
        for px, py in zip(x.tolist(), y.tolist(), strict=True):
            after[px + begin[0], py + begin[1]].append((px + end[0], py + end[1]))
    return after


def _turning_points(ring: NDArray[np.int64]) -> Ring:
    """Of a ring of points one pixel apart those where it turns."""
    steps = np.roll(ring, -1, axis=0) - ring
    return np.asarray(ring[(steps != np.roll(steps, 1, axis=0)).any(axis=1)], dtype=np.float64)
