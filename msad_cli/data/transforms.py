"""From a picture and its boxes to the views of a sample, by torchvision.transforms.v2."""

import random
from collections.abc import Iterable

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as v2f

from msad_cli.structures.frame import Resolution

JITTER = (0.8, 0.84, 0.88, 0.92, 0.96, 1.0)
"""Factors α on the short side: 640…800 for 800, as in the official code."""


def render(image: Image.Image, frame_size: tuple[int, int], k: int) -> Tensor:
    """A view: the picture resized straight to 1/k of the HR frame, as uint8 (3, h/k, w/k).

    Every view is an antialiased bilinear resize of the original, never of another view. So a student sees in training
    exactly the pixels that prediction will give it, and HR pixels are not needed for a low view.
    """
    height, width = frame_size
    size = [height // k, width // k]
    pixels: Tensor = v2f.pil_to_tensor(v2f.resize(image, size, interpolation=v2.InterpolationMode.BILINEAR))
    return pixels


def to_frame(boxes: Tensor, original: tuple[int, int], frame_size: tuple[int, int]) -> Tensor:
    """Boxes (B, 4) in pixels of the original (height, width) -> in HR pixels."""
    y, x = frame_size[0] / original[0], frame_size[1] / original[1]
    return boxes * boxes.new_tensor([x, y, x, y])


def from_frame(boxes: Tensor, original: tuple[int, int], frame_size: tuple[int, int]) -> Tensor:
    """Boxes (B, 4) in HR pixels -> in pixels of the original (height, width)."""
    return to_frame(boxes, frame_size, original)


def training_views(
    image: Image.Image, boxes: Tensor, resolution: Resolution, ks: Iterable[int], jitter: bool, draw: random.Random
) -> tuple[dict[int, Tensor], Tensor, Tensor, tuple[int, int]]:
    """One random flip and one random scale, shared by all views: fusing needs them to show the same thing.

    Args:
        image: RGB.
        boxes: (B, 4) corners in pixels of the original.
        resolution: the HR size before jitter.
        ks: the reductions wanted.
        jitter: whether the short side is scaled by a random α.
        draw: the only source of randomness.

    Returns:
        The views by k; the boxes (B', 4) in HR pixels, clipped; which of the B boxes are kept, (B,) bool; the HR size.
    """
    original = (image.height, image.width)
    canvas = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=original)
    if draw.random() < 0.5:
        image, canvas = v2f.horizontal_flip(image), v2f.horizontal_flip(canvas)
    frame_size = resolution.frame_size(*original, scale=draw.choice(JITTER) if jitter else 1.0)
    scaled = to_frame(v2f.clamp_bounding_boxes(canvas).as_subclass(torch.Tensor), original, frame_size)
    # A box that is thinner than this after clipping has no cell to be learnt in, and its targets divide by its sides.
    kept = ((scaled[:, 2:] - scaled[:, :2]) >= 1.0).all(dim=1)
    return {k: render(image, frame_size, k) for k in ks}, scaled[kept], kept, frame_size
