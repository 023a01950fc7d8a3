"""Which cells stand for which objects by what is predicted there: task-aligned labels, for whole batches.

They are those of TOOD (Feng et al., arXiv 2108.07755), but for small objects, which have cells around them and ask for
more: by TOOD's labels, and by RTMDet's own, a network that starts at random hardly learns them (docs/results.md).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from msad_cli.models.detectors.base import Target

MOST = 13
"""Cells of an object."""
IOU_POWER = 6
"""Of the IoU in how well a cell suits an object, where its score has the power 1."""
SMALL = 2.0
"""Cells of the finest level: an object with a shorter side is a small one."""
LEAST_AREA, LEAST_FIT = 1e-7, 1e-30


class Assigned(NamedTuple):
    """What each of A cells of N images is to predict.

    Attributes:
        quality: (N, A), from 0 to 1, how well the cell suits its object; 0 also for cells without an object.
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

    How well a cell suits an object is its score for the object's class, times the sixth power of the IoU of its
    box. An object has the 13 cells that suit it best, of those that lie in its box; where a side of that is shorter
    than two cells of the finest level, it is taken for as long. A cell that several objects chose stands for the one
    that its box overlaps most. Quality is told as a share of the object's best cell, times the highest IoU of its
    cells, or 1 for a small object.

    Args:
        points: (A, 2), x and y of the cells in pixels of the frame.
        strides: (A,), HR pixels a cell.
        boxes: (N, A, 4) predicted corners.
        logits: (N, A, classes).
        targets: N of them, labels from 1.
    """
    truth = pad_sequence([each["boxes"] for each in targets], batch_first=True).to(boxes)
    labels = pad_sequence([each["labels"] - 1 for each in targets], batch_first=True)
    count, cells = truth.shape[1], len(points)
    if count == 0:
        nothing = boxes.new_zeros(len(targets), cells)
        return Assigned(nothing, nothing.long(), torch.zeros_like(boxes), nothing.bool())
    counts = torch.tensor([len(each["boxes"]) for each in targets], device=boxes.device)
    real = torch.arange(count, device=boxes.device) < counts[:, None]
    sides, least = truth[..., 2:] - truth[..., :2], SMALL * strides.min()
    middles = (truth[..., :2] + truth[..., 2:]) / 2
    apart = (points[:, None] - middles[:, None]).abs()
    possible = (apart < sides.clamp(min=least)[:, None] / 2).all(dim=-1) & real[:, None]
    ious = pairwise_ious(boxes, truth) * possible
    scores = logits.float().sigmoid().gather(2, labels[:, None].expand(-1, cells, -1))
    fit = scores * ious**IOU_POWER

    best, places = fit.topk(min(MOST, cells), dim=1)
    chosen = torch.zeros_like(possible).scatter(1, places, best > 0)
    chosen &= F.one_hot((ious * chosen).argmax(dim=2), count).bool()
    positive, which = chosen.any(dim=2), chosen.int().argmax(dim=2)
    fit = fit * chosen
    highest = torch.where((sides < least).any(dim=-1), 1.0, (ious * chosen).amax(dim=1))[:, None]
    quality = (fit / fit.amax(dim=1, keepdim=True).clamp(min=LEAST_FIT) * highest).sum(dim=2)
    return Assigned(quality, labels.gather(1, which), truth.gather(1, which[..., None].expand(-1, -1, 4)), positive)


def pairwise_ious(boxes: Tensor, truth: Tensor) -> Tensor:
    """IoUs (N, A, M) of boxes (N, A, 4) with others (N, M, 4), corners; 0 for boxes whose sides are exchanged."""
    a, b = boxes[:, :, None], truth[:, None]
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(dim=-1)
    areas = [(each[..., 2:] - each[..., :2]).clamp(min=0).prod(dim=-1) for each in (a, b)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=LEAST_AREA)
