"""Outputs of a dense head, compared most where student and teacher differ."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.models.whole_batch import batch_divisor

DELTA = 1.0
"""δ: the weight of the part of outputs."""
LARGEST = 5.0
"""A weight is cut off here, the mean being 1."""


def difference_weight(apart: Tensor) -> Tensor:
    """Weights (N, M) from how far M places of each image are apart: by their mean, 0 in the lower half of an image.

    0 everywhere where nothing is apart.
    """
    mean = apart.mean(dim=1, keepdim=True).clamp(min=torch.finfo(apart.dtype).tiny)
    kept = apart >= apart.median(dim=1, keepdim=True).values
    return kept * (apart / mean).clamp(max=LARGEST)


def weighted_outputs(student: Knowledge, teacher: Knowledge, weight: Tensor) -> dict[str, Tensor]:
    """Classes, and boxes where both networks have them in one frame.

    With x (N, A, K) the class logits and s = max over classes of σ(x^T):

        classes = δ·Σ weight·BCE(σ(x^S), σ(x^T)) / max(1, Σ s)
        boxes = δ·Σ s·(1 − GIoU(b^S, b^T)) / max(1, Σ s)

    Args:
        weight: (N, A), of each anchor.
    """
    mine, theirs = student.outputs, teacher.outputs
    wanted = theirs["cls_logits"].sigmoid()
    score = wanted.amax(dim=2)
    # It stands for the number of positive cells, which a teacher's outputs do not tell.
    cells = batch_divisor(score.sum())
    cross = F.binary_cross_entropy_with_logits(mine["cls_logits"], wanted, reduction="none").sum(dim=2)
    losses = {"classes": DELTA * (weight * cross).sum() / cells}
    if "bbox_regression" in theirs:
        my_boxes = student.detector.boxes(student.pyramid, student.frame, mine)
        their_boxes = teacher.detector.boxes(teacher.pyramid, teacher.frame, theirs)
        # GIoU divides by areas; next to a box without any, its gradient has no bound.
        solid = (their_boxes[..., 2:] - their_boxes[..., :2]).amin(dim=2) >= 1.0
        distance = generalized_box_iou_loss(my_boxes, their_boxes)
        losses["boxes"] = DELTA * (score * solid * distance).sum() / cells
    return losses
