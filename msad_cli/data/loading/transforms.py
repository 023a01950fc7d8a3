"""From an image and what is in it to the views of a sample, by torchvision.transforms.v2."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as v2f

from msad_cli.data.annotations.segmentation import Segmentation, decode, encode
from msad_cli.data.images.scaled import ScaledImage
from msad_cli.frame import Phase, view_shift

LEAST_SHOWN = 0.1
"""An object of whose box a smaller share is shown is left out: what is left of it rarely tells what it is."""

Part = tuple[int, int, int, int]
"""Edges of a part of something: top, left, bottom, right."""


def render(
    image: ScaledImage, frame_size: tuple[int, int], k: int, mirrored: bool = False, phase: Phase = "centre"
) -> Tensor:
    """A view: the image resized straight to 1/k of the HR frame, as uint8 (3, h/k, w/k).

    Every view is resized from the file's image, never from another view. So a student sees in training exactly the
    pixels that prediction will give it, and HR pixels are not needed for a low view.

    Args:
        phase: that of the model's spec.
    """
    return Placement.filling(image.size, frame_size, mirrored).view(image, k, phase)


def to_frame(boxes: Tensor, original: tuple[int, int], frame_size: tuple[int, int]) -> Tensor:
    """Boxes (B, 4) in pixels of the original (height, width) -> in HR pixels."""
    y, x = frame_size[0] / original[0], frame_size[1] / original[1]
    return boxes * boxes.new_tensor([x, y, x, y])


def from_frame(boxes: Tensor, original: tuple[int, int], frame_size: tuple[int, int]) -> Tensor:
    """Boxes (B, 4) in HR pixels -> in pixels of the original (height, width)."""
    return to_frame(boxes, frame_size, original)


def turned(size: tuple[int, int], turns: int) -> tuple[int, int]:
    """(height, width) of an image of this size after so many turns by 90°."""
    return size[::-1] if turns % 2 else size


@dataclass(frozen=True)
class Placement:
    """How an image is shown in a frame: mirrored, flipped, turned, then scaled, and put somewhere, all or a part of it.

    Positions and sizes are HR pixels, and multiples of 4: so every view has whole pixels of it, resized straight from
    the file's image.

    Attributes:
        original: (height, width) of the image in pixels of its own.
        frame_size: (height, width) of the HR frame.
        mirrored: whether left and right change places.
        upended: whether top and bottom do.
        turns: by how many times 90° it is then turned to the left, 0 to 3.
        size: (height, width) of the whole image, turned.
        corner: how far down and across its corner lies in the frame; negative where a part is cut off.
        tile: the part of the frame in which it is shown.
    """

    original: tuple[int, int]
    frame_size: tuple[int, int]
    mirrored: bool
    upended: bool
    turns: int
    size: tuple[int, int]
    corner: tuple[int, int]
    tile: Part

    @classmethod
    def filling(
        cls,
        original: tuple[int, int],
        frame_size: tuple[int, int],
        mirrored: bool = False,
        upended: bool = False,
        turns: int = 0,
    ) -> "Placement":
        """The image as large as its frame."""
        return cls(original, frame_size, mirrored, upended, turns, frame_size, (0, 0), (0, 0, *frame_size))

    @property
    def shown(self) -> Part:
        """The part of the frame that the image covers."""
        (top, left, bottom, right), (down, across), (height, width) = self.tile, self.corner, self.size
        return max(top, down), max(left, across), min(bottom, down + height), min(right, across + width)

    @property
    def scale(self) -> tuple[float, float]:
        """HR pixels for one of the turned image, down and across."""
        height, width = turned(self.original, self.turns)
        return self.size[0] / height, self.size[1] / width

    def view(self, image: ScaledImage, k: int, phase: Phase) -> Tensor:
        """What is shown of the image, as uint8 (3, h, w): the part `shown` of the view downsampled by k."""
        size = self.size[0] // k, self.size[1] // k
        shift = self._shift_before_turning(view_shift(k, phase))
        return self._cut(self._turned(image.resized(turned(size, self.turns), self.mirrored, shift)), k)

    def boxes(self, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes of the original in the frame.

        Args:
            boxes: (B, 4) corners in pixels of the original.

        Returns:
            Those of which enough is shown, (B', 4) in HR pixels, clipped; which of the B these are, (B,) bool; and of
            which of the B' half a pixel or more is cut off, (B',) bool.
        """
        inside = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=self.original)
        inside = v2f.horizontal_flip(inside) if self.mirrored else inside
        inside = v2f.vertical_flip(inside) if self.upended else inside
        x0, y0, x1, y1 = v2f.clamp_bounding_boxes(inside).as_subclass(Tensor).unbind(1)
        height, width = self.original
        for _ in range(self.turns):
            x0, y0, x1, y1 = y0, width - x1, y1, width - x0
            height, width = width, height
        whole = to_frame(torch.stack([x0, y0, x1, y1], dim=1), (height, width), self.size)
        seen = whole if self.shown == (0, 0, *self.size) else self._clipped(whole)
        sides, all_sides = seen[:, 2:] - seen[:, :2], whole[:, 2:] - whole[:, :2]
        # A box thinner than this after clipping has no cell to be learnt in, and its targets divide by its sides.
        kept = (sides >= 1.0).all(dim=1) & (sides.prod(dim=1) >= LEAST_SHOWN * all_sides.prod(dim=1))
        return seen[kept], kept, (sides < all_sides - 0.5).any(dim=1)[kept]

    def _clipped(self, boxes: Tensor) -> Tensor:
        """Boxes (B, 4) of the whole image, in HR pixels from its corner -> in those of the frame, clipped."""
        (top, left, bottom, right), (down, across) = self.shown, self.corner
        placed = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=self.size)
        cut: Tensor = v2f.crop(placed, top - down, left - across, bottom - top, right - left).as_subclass(Tensor)
        return cut + boxes.new_tensor([left, top, left, top])

    def masks(self, segmentations: Sequence[Segmentation]) -> Tensor:
        """Segmentations of the original -> uint8 (M, h, w) of the frame, 1 inside."""
        masks = torch.zeros((len(segmentations), *self.frame_size), dtype=torch.uint8)
        top, left, bottom, right = self.shown
        size, (down, across) = turned(self.size, self.turns), self.scale
        scale = (across, down) if self.turns % 2 else (down, across)
        for mask, segmentation in zip(masks, segmentations, strict=True):
            # Drawn first, mirrored then: a mirrored mask is the mirror of the plain one to the pixel.
            drawn = tv_tensors.Mask(torch.from_numpy(decode(encode(segmentation, size, scale))))
            drawn = v2f.horizontal_flip(drawn) if self.mirrored else drawn
            mask[top:bottom, left:right] = self._cut(self._turned(drawn))
        return masks

    def keypoints(self, keypoints: Tensor, partners: Sequence[int]) -> Tensor:
        """Keypoints (M, K, 3) of the original -> in HR pixels; those without a label, or not shown, are zeros.

        Coordinates are continuous, as those of boxes are and as torchvision's detectors take them: a mirror brings x to
        w − x. The transforms of torchvision bring it to w − 1 − x.

        Args:
            partners: the place that takes each keypoint's name in a mirror.
        """
        if self.mirrored != self.upended:  # both are half a turn, which leaves left and right what they are
            keypoints = keypoints[:, list(partners)]
        x, y, visibility = keypoints.unbind(2)
        height, width = self.original
        x, y = width - x if self.mirrored else x, height - y if self.upended else y
        for _ in range(self.turns):
            x, y = y, width - x
            height, width = width, height
        (down, across), (top, left, bottom, right) = self.scale, self.shown
        x, y = x * across + self.corner[1], y * down + self.corner[0]
        seen = (visibility > 0) & (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
        return torch.stack([x, y, visibility], dim=2) * seen[..., None]

    def _turned(self, pixels: Tensor) -> Tensor:
        """Pixels (…, h, w) of the mirrored image, upended and turned."""
        pixels = v2f.vertical_flip(pixels) if self.upended else pixels
        return torch.rot90(pixels, self.turns, (-2, -1)) if self.turns else pixels

    def _cut(self, pixels: Tensor, k: int = 1) -> Tensor:
        """Of the pixels of all of the image, downsampled by k, those that are shown."""
        (top, left, bottom, right), (down, across) = self.shown, self.corner
        edges = (top - down, left - across, bottom - top, right - left)
        cut: Tensor = v2f.crop(pixels, *(each // k for each in edges))
        return cut

    def _shift_before_turning(self, shift: float) -> tuple[float, float]:
        """What becomes a shift down and across by so much when the image is upended and turned."""
        down = across = shift
        for _ in range(self.turns):
            down, across = across, -down
        return -down if self.upended else down, across
