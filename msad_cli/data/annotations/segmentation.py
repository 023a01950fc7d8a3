"""Segmentations: polygons and run-length encodings (RLE), held as a few flat arrays and drawn at any size."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from msad_cli.data.images.decode import most_pixels

Rings = list[NDArray[Any]]
"""Polygons of one object, each (P, 2) floats x, y; the object is their union."""
Rle = dict[str, Any]
"""COCO's compressed RLE: `size` [height, width], `counts` bytes."""
Segmentation = Rings | Rle

FARTHEST = 1e6
"""Pixels from the corner of the image: beyond it, pycocotools' integers overflow."""
LONGEST = 1e6
"""Pixels around a segmentation. pycocotools takes 100 bytes a pixel to draw it, wherever it lies."""
FEWEST_NUMBERS = 6
"""Of a polygon: three points."""
MOST_GROUPS = 7
"""Of five bits, in the length of one run: more than any image needs."""
BETWEEN = np.full((1, 2), np.nan, dtype=np.float32)
"""Stands between two polygons of one object."""


@dataclass(frozen=True)
class Segmentations:
    """Segmentations of A objects.

    Polygons stay polygons: they are drawn sharply at any size, and need no size of the image. RLE stays text.

    Attributes:
        data: (D,) uint8, one object after the other: polygons as float32 x, y, x, y, … in pixels of the original
            image, a pair of NaN between two; or compressed counts.
        starts: (A + 1,) object i owns data[starts[i]:starts[i + 1]], nothing where it has no usable segmentation.
        sizes: (A, 2) height and width of the RLE's grid in pixels; 0 for polygons.
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(A,) whether there is a segmentation."""
        return np.diff(self.starts) > 0

    def take(self, rows: NDArray[np.int64]) -> "Segmentations":
        """Those of some objects, in their order."""
        lengths = np.diff(self.starts)[rows]
        data = np.empty(int(lengths.sum()), dtype=np.uint8)
        end = 0
        # One by one: an index for every byte would take eight times the memory of all.
        for first, length in zip(self.starts[rows].tolist(), lengths.tolist(), strict=True):
            data[end : end + length] = self.data[first : first + length]
            end += length
        return Segmentations(data, np.concatenate([[0], lengths.cumsum()]).astype(np.int64), self.sizes[rows])

    def segmentation(self, row: int) -> Segmentation:
        """One segmentation; no polygon where there is none."""
        own = self.data[self.starts[row] : self.starts[row + 1]]
        if self.sizes[row].any():
            return {"size": self.sizes[row].tolist(), "counts": own.tobytes()}
        points = np.frombuffer(own.tobytes(), dtype=np.float32).reshape(-1, 2)
        ends = np.flatnonzero(np.isnan(points[:, 0]))
        return [each[1:] if i else each for i, each in enumerate(np.split(points, ends))] if len(points) else []


class SegmentationsBuilder:
    """Collects segmentations one by one into flat memory."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._starts = [0]
        self._sizes: list[int] = []

    def add(self, segmentation: Segmentation | None) -> None:
        """The next object's; None for one that has no usable segmentation."""
        if isinstance(segmentation, dict):
            self._data += segmentation["counts"]
        elif segmentation:
            pieces = [piece for ring in segmentation for piece in (BETWEEN, ring)]
            self._data += np.concatenate(pieces[1:]).astype(np.float32).tobytes()
        self._sizes += segmentation["size"] if isinstance(segmentation, dict) else (0, 0)
        self._starts.append(len(self._data))

    def built(self) -> Segmentations:
        """All of them."""
        sizes = np.array(self._sizes, dtype=np.int64).reshape(-1, 2)
        return Segmentations(np.frombuffer(bytes(self._data), np.uint8), np.array(self._starts, dtype=np.int64), sizes)


def read_segmentation(value: object) -> Segmentation | None:
    """The segmentation of a COCO annotation, or None where nothing can be drawn from it.

    Of several polygons those with three points or more are taken. Nothing in it is handed to pycocotools unchecked,
    whose C code reads past the end of a damaged text and takes any memory for a polygon of vast sides.
    """
    if isinstance(value, list):
        return [ring for ring in map(_read_ring, value) if ring is not None] or None
    if not isinstance(value, dict) or not isinstance(size := value.get("size"), list) or len(size) != 2:
        return None
    if not all(type(side) is int and side > 0 for side in size) or math.prod(size) > most_pixels():
        return None
    counts = value.get("counts")
    lengths = _read_lengths(counts) if isinstance(counts, list) else _decompressed(counts)
    if lengths is None or (lengths < 0).any() or lengths.sum() != math.prod(size) or not lengths[1::2].any():
        return None
    if isinstance(counts, str):
        return {"size": size, "counts": counts.encode()}
    compressed: Rle = rle.frPyObjects({"size": size, "counts": lengths.tolist()}, *size)
    return compressed


def encode(segmentation: Segmentation, size: tuple[int, int], scale: tuple[float, float] = (1.0, 1.0)) -> Rle:
    """RLE of a segmentation on a grid of (height, width) pixels.

    Args:
        segmentation: polygons in pixels of the original, or RLE, whose grid covers the whole image.
        size: the grid.
        scale: its pixels for one of the original, down and across.
    """
    if isinstance(segmentation, dict):
        return segmentation if tuple(segmentation["size"]) == size else _resized(segmentation, size)
    rings = [ring.astype(np.float64) * scale[::-1] for ring in segmentation]
    drawn = [ring.ravel().tolist() for ring in rings if _is_drawable(ring)]
    if not drawn:
        return encode_mask(np.zeros(size, dtype=np.uint8))
    merged: Rle = rle.merge(rle.frPyObjects(drawn, *size))
    return merged


def decode(encoded: Rle) -> NDArray[np.uint8]:
    """The mask (height, width) of an RLE, 1 inside. Its runs go down the columns, and begin outside."""
    lengths = _decompressed(encoded["counts"].decode("ascii"))
    assert lengths is not None, "an RLE is checked where it is read"
    inside = np.arange(len(lengths), dtype=np.uint8) & np.uint8(1)
    return np.repeat(inside, lengths).reshape(encoded["size"], order="F")


def pixels_inside(encoded: Rle) -> int:
    """The area of a mask."""
    return int(rle.area(encoded))


def overlap(rings: Rings, size: tuple[int, int]) -> bool:
    """Whether polygons in pixels share a pixel of an image of (height, width)."""
    alone = sum(pixels_inside(encode([ring], size)) for ring in rings) if len(rings) > 1 else 0
    return alone > pixels_inside(encode(rings, size))


def encode_mask(mask: NDArray[np.uint8]) -> Rle:
    """RLE of a mask (height, width), 1 inside."""
    encoded: Rle = rle.encode(np.asfortranarray(mask))
    return encoded


def _resized(encoded: Rle, size: tuple[int, int]) -> Rle:
    # Pillow's filter averages where it shrinks. An object that is thinner than a pixel keeps its densest pixels.
    image = Image.fromarray(decode(encoded) * np.uint8(255)).resize(size[::-1], Image.Resampling.BILINEAR)
    shares = np.asarray(image)
    return encode_mask((shares >= min(128, max(1, int(shares.max())))).astype(np.uint8))


def _read_ring(points: object) -> NDArray[np.float64] | None:
    if not isinstance(points, list) or len(points) < FEWEST_NUMBERS or len(points) % 2:
        return None
    if not set(map(type, points)) <= {int, float}:
        return None
    try:
        ring = np.array(points, dtype=np.float64).reshape(-1, 2)
    except OverflowError:
        return None
    return ring if _is_drawable(ring) else None


def _is_drawable(ring: NDArray[np.float64]) -> bool:
    if not (np.abs(ring) <= FARTHEST).all():  # not >: NaN is no place either
        return False
    return bool(np.abs(ring - np.roll(ring, 1, axis=0)).max(axis=1).sum() <= LONGEST)


def _read_lengths(counts: list[Any]) -> NDArray[np.int64] | None:
    if not counts or not set(map(type, counts)) <= {int} or max(counts) > most_pixels():
        return None
    return np.array(counts, dtype=np.int64) if min(counts) >= 0 else None


def _decompressed(counts: object) -> NDArray[np.int64] | None:
    """The lengths of the runs that a compressed text stands for.

    A character holds five bits of a number, lowest first, and whether more follow; the last one's highest bit is the
    sign. From the fourth number on, what is written is the difference to the one before the last.
    """
    if not isinstance(counts, str) or not counts or not counts.isascii():
        return None
    digits = np.frombuffer(counts.encode(), dtype=np.uint8).astype(np.int64) - 48
    if digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        return None
    ends = np.flatnonzero((digits & 32) == 0)
    groups = np.diff(ends, prepend=-1)
    if groups.max() > MOST_GROUPS:
        return None
    begins = ends + 1 - groups
    shifts = 5 * (np.arange(len(digits)) - np.repeat(begins, groups))
    numbers = np.add.reduceat((digits & 31) << shifts, begins)
    numbers -= ((digits[ends] & 16) >> 4) << (5 * groups)
    for chain in (numbers[1::2], numbers[2::2]):
        np.cumsum(chain, out=chain)
    return numbers
