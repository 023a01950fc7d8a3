"""Which cells stand for which objects by what is predicted there: RTMDet's dynamic soft labels, for whole batches.

RTMDet (Lyu et al., arXiv 2212.07784) takes from SimOTA (Ge et al., YOLOX, 2021) that each object has as many cells as
its best predictions overlap it, those that cost least.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from msad_cli.models.detectors.base import Target

CANDIDATES = 13
"""Predictions whose IoUs with an object, added up, are the number of its cells."""
IOU_WEIGHT = 3.0
CENTRE_RADIUS = 3.0
"""Strides from an object's middle, at which the cost of the distance is 1."""
LEAST_IOU = 1e-7


class Assigned(NamedTuple):
    """What each of A cells of N images is to predict.

    Attributes:
        quality: (N, A), the IoU of the cell's prediction with its object; 0 also for cells without an object.
        labels: (N, A) int64, from 0; of no meaning for cells without an object.
        boxes: (N, A, 4), the object's corners.
        positive: (N, A) bool, whether a cell has an object.
    """

    quality: Tensor
    labels: Tensor
    boxes: Tensor
    positive: Tensor


@torch.no_grad()
def assign(points: Tensor, strides: Tensor, boxes: Tensor, logits: Tensor, targets: Sequence[Target]) -> Assigned:
    """Cells for every object, by the predictions of a batch.

    A cell within no object's box has none. For the rest and each object of the image,

        cost = Σ over classes of BCE(σ(x), y)·(y − σ(x))² − 3·ln(IoU + 1e-7) + 10^(distance in strides − 3)

    with y the IoU for the object's class and 0 for the others. An object has the k cells of the least cost, k being
    the sum of its 13 largest IoUs, rounded down, and at least 1. A cell that several objects chose stands for the one
    that costs least there.

    Args:
        points: (A, 2), x and y of the cells in pixels of the frame.
        strides: (A,), HR pixels a cell.
        boxes: (N, A, 4) predicted corners.
        logits: (N, A, classes).
        targets: N of them, labels from 1.
    """
    truth = pad_sequence([each["boxes"] for each in targets], batch_first=True).to(boxes)
    labels = pad_sequence([each["labels"] - 1 for each in targets], batch_first=True)
    count = truth.shape[1]
    cells = len(points)
    if count == 0:
        nothing = boxes.new_zeros(len(targets), cells)
        return Assigned(nothing, nothing.long(), torch.zeros_like(boxes), nothing.bool())
    counts = torch.tensor([len(each["boxes"]) for each in targets], device=boxes.device)
    real = torch.arange(count, device=boxes.device) < counts[:, None]
    x, y = (each[:, None] for each in points.unbind(dim=1))
    left, top, right, bottom = truth[:, None].unbind(dim=-1)
    inside = ((x > left) & (x < right) & (y > top) & (y < bottom) & real[:, None]).any(dim=2)
    possible = inside[:, :, None] & real[:, None]

    ious = pairwise_ious(boxes, truth) * possible
    cost = _class_cost(logits, labels, ious) - IOU_WEIGHT * (ious + LEAST_IOU).log()
    middles = (truth[:, None, :, :2] + truth[:, None, :, 2:]) / 2
    distance = (points[:, None] - middles).norm(dim=-1) / strides[:, None]
    cost = (cost + 10 ** (distance - CENTRE_RADIUS)).masked_fill(~possible, torch.inf)

    most = min(CANDIDATES, cells)
    wanted = ious.topk(most, dim=1).values.sum(dim=1).int().clamp(min=1)
    least, places = cost.topk(most, dim=1, largest=False)
    rank = torch.arange(most, device=boxes.device)[:, None]
    taken = (rank < wanted[:, None]) & least.isfinite()
    chosen = torch.zeros_like(possible).scatter(1, places, taken)
    several = chosen.sum(dim=2) > 1
    cheapest = F.one_hot(cost.argmin(dim=2), count).bool()
    chosen = torch.where(several[..., None], cheapest, chosen)

    positive = chosen.any(dim=2)
    which = chosen.int().argmax(dim=2)
    quality = (ious * chosen).sum(dim=2)
    return Assigned(quality, labels.gather(1, which), truth.gather(1, which[..., None].expand(-1, -1, 4)), positive)


def pairwise_ious(boxes: Tensor, truth: Tensor) -> Tensor:
    """IoUs (N, A, M) of boxes (N, A, 4) with others (N, M, 4), corners; 0 for boxes whose sides are exchanged."""
    a, b = boxes[:, :, None], truth[:, None]
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(dim=-1)
    areas = [(each[..., 2:] - each[..., :2]).clamp(min=0).prod(dim=-1) for each in (a, b)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=LEAST_IOU)


def _class_cost(logits: Tensor, labels: Tensor, ious: Tensor) -> Tensor:
    """The first part of the cost, (N, A, M), of logits (N, A, K), labels (N, M) from 0 and IoUs (N, A, M).

    Of the other classes the sum is the same for all objects but for the term of the object's own class.
    """
    others = F.softplus(logits) * logits.sigmoid() ** 2
    own = labels[:, None].expand(-1, logits.shape[1], -1)
    logit = logits.gather(2, own)
    soft = F.binary_cross_entropy_with_logits(logit, ious, reduction="none") * (ious - logit.sigmoid()) ** 2
    return others.sum(dim=2, keepdim=True) - others.gather(2, own) + soft
