"""The one coordinate frame: pixels of the high-resolution (HR) image.

Ground truth, anchors, strides, size ranges and clipping always live in this frame. A *view* (k = 1, 2, 4) only says
which pixels the backbone sees: the HR image, or the same image downsampled by k.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FRAME_DIVISOR = 128
"""Padding in pixels by which every level has a whole grid, down to P7: what an unaligned student's small image needs,
whose grids are compared with k times finer ones. Models of older files pad to it too."""

DIVISOR = 32
"""HR padding, in pixels, of aligned views, and of torchvision's detectors. Halving rounds up wherever a view begins, so
that grids of all views agree; P6 and P7 may end in a part of a cell."""

SIDE_MULTIPLE = 4
"""Sides of an HR image are multiples of this, so that the views at k = 2 and 4 have whole sides too."""


Phase = Literal["grid", "centre"]
"""How a low view's pixels lie in the HR image. `grid`: each is centred on the first of the k × k HR pixels that it
stands for. So are the cells of strided convolutions (padded by half their kernel) on what they stand for: cell i of
stride s looks at HR pixel s·i in every view. `centre`: each is centred on all k × k, as in an ordinary resize; then
cells of the low view look (k − 1) / 2 HR pixels further right and down. Models of older files have the latter."""


def view_shift(k: int, phase: Phase) -> float:
    """By how many of its own pixels what a view shows lies right of, and below, where an ordinary resize has it.

    It is a matter of pixels alone: where a small image has a frame of its own, boxes in it are HR pixels over k.
    """
    return (k - 1) / (2 * k) if phase == "grid" else 0.0


def level_shift(k: int) -> int:
    """By how many levels the pyramid shifts at a view downsampled by k: m = log2 k.

    The paper prints m = k/2, which agrees only for k = 2 and 4; grids coincide for the logarithm alone.

    Raises:
        ValueError: k is no power of two from 1 to 4.
    """
    if k not in (1, 2, 4):
        raise ValueError(f"k = {k}: grids align only where k is a power of two, and ResNets have no level for k > 4")
    return k.bit_length() - 1


@dataclass(frozen=True)
class Resolution:
    """How large the HR image is: its short side, unless its long side would pass a limit (both in pixels)."""

    short_side: int
    long_side: int

    def __post_init__(self) -> None:
        if not 32 <= self.short_side <= self.long_side <= 16384:
            raise ValueError(
                f"size {self.short_side},{self.long_side}: give SHORT,LONG with 32 <= SHORT <= LONG <= 16384"
            )

    def frame_size(self, height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
        """Height and width of the HR image (pixels, multiples of 4) of an image of `height` × `width` pixels.

        `scale` is the jitter α of the paper; it shrinks the short side's target, never the limit of the long side.
        """
        short, long = sorted((height, width))
        return _scaled(height, width, min(self.short_side * scale / short, self.long_side / long))


@dataclass(frozen=True)
class Letterbox(Resolution):
    """One size into which every HR image fits, upright or lying; what an image leaves free is padded.

    Attributes:
        upright: its height is the long side.
    """

    upright: bool = False

    def frame_size(self, height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
        """As `Resolution.frame_size`, of the largest HR image that fits."""
        down, across = (self.long_side, self.short_side) if self.upright else (self.short_side, self.long_side)
        return _scaled(height, width, scale * min(down / height, across / width))


def _scaled(height: int, width: int, ratio: float) -> tuple[int, int]:
    def side(pixels: int) -> int:
        return max(SIDE_MULTIPLE, round(pixels * ratio / SIDE_MULTIPLE) * SIDE_MULTIPLE)

    return side(height), side(width)


@dataclass(frozen=True)
class Frame:
    """The HR frame of a batch: unpadded image sizes and the common padded size, as (height, width) in HR pixels."""

    image_sizes: tuple[tuple[int, int], ...]
    padded: tuple[int, int]

    def grid(self, level: int) -> tuple[int, int]:
        """Cells of P_level, (down, across); the last may be a part of one."""
        return -(-self.padded[0] >> level), -(-self.padded[1] >> level)

    @classmethod
    def around(cls, sizes: Sequence[tuple[int, int]], k: int = 1, divisor: int = FRAME_DIVISOR) -> "Frame":
        """The frame of a batch whose view downsampled by k has images of these (height, width) pixels.

        Args:
            divisor: its sides are multiples of so many HR pixels.
        """
        images = tuple((height * k, width * k) for height, width in sizes)
        padded = tuple(math.ceil(max(side) / divisor) * divisor for side in zip(*images, strict=True))
        return cls(images, (padded[0], padded[1]))
