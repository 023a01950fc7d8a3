"""Distillation of a dense head's outputs (Hinton et al., 2015, for sigmoid heads; the detector's form is our choice).

Student and teacher predict on one grid, so that every cell's outputs have their counterpart.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.models.detectors.base import Target
from msad_cli.models.spec import DetectorSpec
from msad_cli.models.whole_batch import batch_divisor

TEMPERATURE = 2.0


class OutputKD(nn.Module):
    """T²·KL of each cell's classes, L1 of its box and KL of its centreness, cells counting by the teacher's own score.

    With x the class logits (N, A, K), w = max over classes of σ(x^T) and W = max(1, Σ w) over the batch:

        L = ( T²·Σ KL(σ(x^T/T) ‖ σ(x^S/T)) + Σ w·mean|b^S − b^T| + Σ w·KL(σ(c^T) ‖ σ(c^S)) ) / W

    0 for equal outputs. W stands for the number of positive cells, which a teacher's outputs do not tell. Boxes and
    centreness count where both networks have comparable ones: a student that is not aligned learns no boxes.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec) -> None:
        super().__init__()

    def forward(self, student: Knowledge, teacher: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The distances of a student's outputs from a teacher's."""
        mine, theirs = student.outputs, teacher.outputs
        weight = theirs["cls_logits"].sigmoid().amax(dim=2)
        cells = batch_divisor(weight.sum())
        classes = bernoulli_kl(mine["cls_logits"] / TEMPERATURE, theirs["cls_logits"] / TEMPERATURE).sum()
        losses = {"classes": TEMPERATURE**2 * classes / cells}
        if "bbox_regression" in theirs:
            boxes = F.l1_loss(mine["bbox_regression"], theirs["bbox_regression"], reduction="none").mean(dim=2)
            losses["boxes"] = (weight * boxes).sum() / cells
        if "bbox_ctrness" in theirs:
            centreness = bernoulli_kl(mine["bbox_ctrness"], theirs["bbox_ctrness"]).squeeze(2)
            losses["centreness"] = (weight * centreness).sum() / cells
        return losses


def bernoulli_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(σ(teacher) ‖ σ(student)) of each logit; cross-entropy less entropy, so that it is 0 for equal ones."""
    probability = teacher.sigmoid()
    cross = F.binary_cross_entropy_with_logits(student, probability, reduction="none")
    entropy = F.binary_cross_entropy_with_logits(teacher, probability, reduction="none")
    return torch.sub(cross, entropy)
