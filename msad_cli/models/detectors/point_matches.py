"""Which objects RepPoints' cells learn from: the first points by place and size, the refined ones by overlap.

Matches are (A,) int64: the place of a cell's object, or below 0 for none.
"""

import torch
from torch import Tensor
from torchvision.ops import box_iou

SIZE = 4
"""An object of so many strides belongs to a level."""
THINNEST = 1e-6
POSITIVE, NEGATIVE = 0.5, 0.4
"""IoU from which on a first box stands for an object, and below which it stands for the background."""
NONE, NEITHER = -1, -2
"""Matches of the background, and of first boxes between the two thresholds, whose classes nothing is learnt from."""


def by_place(points: Tensor, strides: Tensor, objects: Tensor) -> Tensor:
    """Each object's nearest cell of its level; of several objects at one cell, the nearest has it.

    The level is log2 of a side over 4, the mean of both sides', cut off to a whole number, and the nearest there is.
    Distances are in sides of the object.

    Args:
        points: (A, 2), x and y in pixels, and `strides` (A,).
        objects: (M, 4), corners in pixels.
    """
    if not len(objects):
        return torch.full_like(strides, NONE, dtype=torch.int64)
    levels = strides.log2().round().int()
    sides = (objects[:, 2:] - objects[:, :2]).clamp(min=THINNEST)
    own = (sides / SIZE).log2().mean(dim=1).int().clamp(int(levels.min()), int(levels.max()))
    middles = (objects[:, :2] + objects[:, 2:]) / 2
    apart = ((points - middles[:, None]) / sides[:, None]).norm(dim=2)
    nearest, cell = apart.where(own[:, None] == levels, torch.inf).min(dim=1, keepdim=True)
    claims = torch.full_like(apart, torch.inf).scatter(1, cell, nearest)
    best, which = claims.min(dim=0)
    return which.where(best.isfinite(), NONE)


def by_overlap(boxes: Tensor, objects: Tensor) -> Tensor:
    """Each box's object by IoU, and each object's best box in any case, if it meets one.

    Args:
        boxes: (A, 4), the cells' first ones, and `objects` (M, 4): corners in pixels.
    """
    if not len(objects):
        return torch.full_like(boxes[:, 0], NONE, dtype=torch.int64)
    ious = box_iou(objects, boxes)
    best, which = ious.max(dim=0)
    matches = torch.where(best >= POSITIVE, which, torch.where(best < NEGATIVE, NONE, NEITHER))
    sought = (ious == ious.amax(dim=1, keepdim=True)) & (ious > 0)
    places = torch.arange(len(objects), device=ious.device)[:, None]
    seeker = torch.where(sought, places, NONE).amax(dim=0)
    return seeker.where(seeker >= 0, matches)
