"""From the masks that torchvision's Mask R-CNN gives within boxes to masks of whole pictures."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

INSIDE = 0.5
"""The least probability of a mask's pixels, as torchvision's own examples and detectron2 have it."""
MOST_PIXELS = 2**24
"""Of all masks that are held at a time: 64 MiB as floats. A hundred of 4000 × 3000 pixels would be 4.5 GiB."""


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Masks (height, width) of a picture, 1 inside, one a detection, in order.

    Args:
        masks: (D, 1, 28, 28) probabilities over each box, before pasting; any grid will do.
        boxes: (D, 4) corners in pixels of the picture, within it.
        size: of the picture, (height, width) in pixels.
    """
    at_once = max(1, MOST_PIXELS // (size[0] * size[1]))
    for some, where in zip(masks.split(at_once), boxes.split(at_once), strict=True):
        pasted = paste_masks_in_image(some.float(), where.float(), size)[:, 0]
        yield from (pasted >= INSIDE).to(torch.uint8).cpu().numpy()
