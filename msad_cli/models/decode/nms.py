"""Non-maximum suppression (NMS) of whole batches, in tensors of fixed shapes: what an exported graph can hold.

Torchvision suppresses image by image and class by class, in loops that no graph has for batches of any size.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

DROPPED = -1.0
"""The score of what was suppressed."""
SAME_OBJECT = 0.6
"""IoU above which two boxes are taken for one object whatever their classes, unless somebody says: FCOS's own."""


def overlap_of(nms_iou: float | None) -> float:
    """The IoU from which on two boxes are one object: what was typed, or `SAME_OBJECT`."""
    return SAME_OBJECT if nms_iou is None else nms_iou


def one_class_a_box(found: Mapping[str, Tensor], overlap: float | None) -> dict[str, Tensor]:
    """The detections of an image that no surer one overlaps, of whichever class; the surest first.

    Args:
        found: `boxes` (D, 4), corners, `scores` (D,) and whatever else has D rows.
        overlap: the IoU above which the lower score goes; all stay as they are if None.
    """
    if overlap is None:
        return dict(found)
    kept = nms(found["boxes"].float(), found["scores"].float(), overlap)
    return {name: each[kept] for name, each in found.items()}


def top(scores: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The best `most` of each row, however few there are.

    Args:
        scores: (N, B), B ≥ 1.

    Returns:
        Scores (N, most), descending, `DROPPED` where a row has no more; and their places (N, most) in the row.
    """
    best, places = F.pad(scores, (0, most), value=DROPPED).topk(most, dim=1)
    return best, places.clamp(max=scores.shape[1] - 1)


def taken(values: Tensor, places: Tensor) -> Tensor:
    """(N, B, V) at places (N, M) of each row: (N, M, V)."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))


def best_pairs(scores: Tensor, most: int, one_class: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The best pairs of an anchor and a class of each image.

    Args:
        scores: (N, A, C) of every pair.
        most: how many.
        one_class: whether an anchor takes part with its best class alone.

    Returns:
        Scores (N, most), descending, `DROPPED` where there are no more; and (N, most) each their anchors and classes,
        from 0.
    """
    classes = scores.shape[2]
    if not one_class:
        best, places = top(scores.flatten(1), most)
        return best, places // classes, places % classes
    highest, named = scores.max(dim=2)
    best, anchors = top(highest, most)
    return best, anchors, named.gather(1, anchors)


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, count: int, overlap: float, most: int) -> Tensor:
    """Non-maximum suppression of each image and group by itself.

    Args:
        boxes: (N, B, 4) corners, none below 0.
        scores: (N, B), `DROPPED` for boxes that take no part.
        groups: (N, B), or what broadcasts to it, from 0 to `count` − 1.
        overlap: the IoU above which the lower score goes.
        most: of an image, how many are wanted.

    Returns:
        (N, B) scores, `DROPPED` for what was suppressed or took no part, and perhaps for what is not among an image's
        best so many.
    """
    # Each group is moved to a place of its own. In a row, as torchvision has them, the places of many classes would
    # need coordinates that float32 has no fractions for; so they lie in a square.
    columns = math.ceil(math.sqrt(count))
    origin = torch.stack([groups % columns, groups // columns], dim=-1) * (boxes.max() + 1)
    kept: Tensor = suppressed(boxes + torch.cat([origin, origin], dim=-1), scores, overlap, most)
    return kept


def suppress_images(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    """As `suppress`, of boxes that are all of one group."""
    image = torch.arange(boxes.shape[0], device=boxes.device)[:, None, None]
    # Torchvision tells an exporter that no fewer than two boxes are left, which the graph then insists on.
    corners = -2 * torch.arange(1, 3, device=boxes.device, dtype=boxes.dtype)[:, None]
    survivors = torch.cat([corners, corners, corners + 1, corners + 1], dim=1)
    moved = torch.cat([survivors, (boxes + image * (boxes.max() + 1)).flatten(0, 1)])
    flat = torch.cat([scores.new_zeros(2), scores.flatten()])
    rows = (flat > DROPPED).nonzero()[:, 0]
    kept = rows[nms(moved[rows], flat[rows], overlap)]
    return torch.full_like(flat, DROPPED).index_put((kept,), flat[kept])[2:].view_as(scores)


suppressed = torch.library.custom_op("msad::suppressed", suppress_images, mutates_args=())
"""`suppress_images` as one operation: ONNX has such a one, which stops when it has found as many as are wanted."""


@suppressed.register_fake
def _(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    return torch.empty_like(scores)
