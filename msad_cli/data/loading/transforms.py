"""From an image and what is in it to the views of a sample, by torchvision.transforms.v2."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as v2f

from msad_cli.data.annotations.segmentation import Segmentation, decode, encode
from msad_cli.data.images.scaled import ScaledImage
from msad_cli.data.loading.mirroring import MIRRORED
from msad_cli.frame import Phase, Resolution, view_shift

JITTER = (0.8, 0.84, 0.88, 0.92, 0.96, 1.0)
"""Factors α on the short side: 640…800 for 800, as in the official code."""


def render(
    image: ScaledImage, frame_size: tuple[int, int], k: int, mirrored: bool = False, phase: Phase = "centre"
) -> Tensor:
    """A view: the image resized straight to 1/k of the HR frame, as uint8 (3, h/k, w/k).

    Every view is resized from the file's image, never from another view. So a student sees in training exactly the
    pixels that prediction will give it, and HR pixels are not needed for a low view.

    Args:
        phase: that of the model's spec.
    """
    height, width = frame_size
    return image.resized((height // k, width // k), mirrored, view_shift(k, phase))


def to_frame(boxes: Tensor, original: tuple[int, int], frame_size: tuple[int, int]) -> Tensor:
    """Boxes (B, 4) in pixels of the original (height, width) -> in HR pixels."""
    y, x = frame_size[0] / original[0], frame_size[1] / original[1]
    return boxes * boxes.new_tensor([x, y, x, y])


def from_frame(boxes: Tensor, original: tuple[int, int], frame_size: tuple[int, int]) -> Tensor:
    """Boxes (B, 4) in HR pixels -> in pixels of the original (height, width)."""
    return to_frame(boxes, frame_size, original)


@dataclass(frozen=True)
class Placement:
    """How an image is shown: mirrored or not, then scaled from `original` to `frame_size` (height, width) pixels."""

    original: tuple[int, int]
    frame_size: tuple[int, int]
    mirrored: bool

    @property
    def scale(self) -> tuple[float, float]:
        """HR pixels for one of the original, down and across."""
        return self.frame_size[0] / self.original[0], self.frame_size[1] / self.original[1]

    def masks(self, segmentations: Sequence[Segmentation]) -> Tensor:
        """Segmentations of the original -> uint8 (M, h, w) of the HR size, 1 inside."""
        masks = torch.zeros((len(segmentations), *self.frame_size), dtype=torch.uint8)
        for mask, segmentation in zip(masks, segmentations, strict=True):
            mask.copy_(torch.from_numpy(decode(encode(segmentation, self.frame_size, self.scale))))
        # Drawn first, mirrored then: a mirrored mask is the mirror of the plain one to the pixel.
        return masks.flip(2) if self.mirrored else masks

    def keypoints(self, keypoints: Tensor, partners: Sequence[int]) -> Tensor:
        """Keypoints (M, K, 3) of the original -> in HR pixels; those without a label, or outside, are zeros.

        Coordinates are continuous, as those of boxes are and as torchvision takes them: a mirror brings x to w − x.

        Args:
            partners: the place that takes each keypoint's name in a mirror.
        """
        if self.mirrored:
            keypoints = keypoints[:, list(partners)] * keypoints.new_tensor([-1, 1, 1])
            keypoints += keypoints.new_tensor([self.original[1], 0, 0])
        down, across = self.scale
        scaled = keypoints * keypoints.new_tensor([across, down, 1])
        x, y, visibility = scaled.unbind(2)
        height, width = self.frame_size
        seen = (visibility > 0) & (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
        return scaled * seen[..., None]


def training_views(
    image: ScaledImage,
    boxes: Tensor,
    resolution: Resolution,
    ks: Iterable[int],
    jitter: bool,
    draw: random.Random,
    fliplr: float = MIRRORED,
    phase: Phase = "centre",
) -> tuple[dict[int, Tensor], Tensor, Tensor, Placement]:
    """One random flip and one random scale, shared by all views: fusing needs them to show the same thing.

    Args:
        image: its pixels and size.
        boxes: (B, 4) corners in pixels of the original.
        resolution: the HR size before jitter.
        ks: the reductions wanted.
        jitter: whether the short side is scaled by a random α.
        draw: the only source of randomness.
        fliplr: how likely the image is mirrored.
        phase: that of the model's spec.

    Returns:
        The views by k; the boxes (B', 4) in HR pixels, clipped; which of the B boxes are kept, (B,) bool; and the way
        that the image went, for what else is in it.
    """
    original = image.size
    canvas = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=original)
    mirrored = draw.random() < fliplr
    if mirrored:
        canvas = v2f.horizontal_flip(canvas)
    frame_size = resolution.frame_size(*original, scale=draw.choice(JITTER) if jitter else 1.0)
    scaled = to_frame(v2f.clamp_bounding_boxes(canvas).as_subclass(torch.Tensor), original, frame_size)
    # A box that is thinner than this after clipping has no cell to be learnt in, and its targets divide by its sides.
    kept = ((scaled[:, 2:] - scaled[:, :2]) >= 1.0).all(dim=1)
    views = {k: render(image, frame_size, k, mirrored, phase) for k in ks}
    return views, scaled[kept], kept, Placement(original, frame_size, mirrored)
