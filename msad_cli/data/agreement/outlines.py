"""The extent of an annotation's outline, as its file has it."""

import math
from typing import Any

from pycocotools import mask as rle

from msad_cli.data.annotations.segmentation import Rle, Segmentation

Extent = tuple[float, float, float, float]
"""x0, y0, x1, y1."""
NO_EXTENT: Extent = (math.nan,) * 4
FEWEST_NUMBERS = 6
"""Of a polygon: three points."""


def outline_of(value: Any, drawn: Segmentation | None) -> tuple[Extent, tuple[int, int]]:
    """The extent of an outline and its grid.

    Args:
        value: the field `segmentation`.
        drawn: what was read of it; of polygons it need not be.

    Returns:
        Corners in the units of the file, NaN where there is no outline; (height, width) of the grid of an RLE, else
        zeros.
    """
    if isinstance(drawn, dict):
        return rle_extent(drawn), (drawn["size"][0], drawn["size"][1])
    return (polygon_extent(value) if isinstance(value, list) else NO_EXTENT), (0, 0)


def rle_extent(encoded: Rle) -> Extent:
    """The corners of what is inside a run-length encoded mask that was read, in pixels of its grid."""
    x, y, width, height = rle.toBbox(encoded).tolist()
    return (x, y, x + width, y + height)


def polygon_extent(rings: list[Any]) -> Extent:
    """The corners of all polygons that have three points; NaN where there are none, or numbers that are none."""
    usable = [ring for ring in rings if isinstance(ring, list) and len(ring) >= FEWEST_NUMBERS and len(ring) % 2 == 0]
    try:
        xs = [end for ring in usable for end in (min(ring[::2]), max(ring[::2]))]
        ys = [end for ring in usable for end in (min(ring[1::2]), max(ring[1::2]))]
        extent = (float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys)))
    except (TypeError, ValueError, OverflowError):  # texts, lists, nothing at all, a number of hundreds of digits
        return NO_EXTENT
    return extent if all(map(math.isfinite, extent)) else NO_EXTENT
