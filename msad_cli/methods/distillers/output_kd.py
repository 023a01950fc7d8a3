"""Distillation of a dense head's answers (Hinton et al., 2015, for sigmoid heads; the detector's form is our choice).

Student and teacher answer on one grid, so that every cell's answer has its counterpart.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msad_cli.methods.knowledge import Knowledge

TEMPERATURE = 2.0


class OutputKD(nn.Module):
    """T²·KL of each cell's classes, L1 of its box and KL of its centreness, cells counting by the teacher's own score.

    With x the class logits (N, A, K), w = max over classes of σ(x^T) and W = max(1, Σ w) over the batch:

        L = ( T²·Σ KL(σ(x^T/T) ‖ σ(x^S/T)) + Σ w·mean|b^S − b^T| + Σ w·KL(σ(c^T) ‖ σ(c^S)) ) / W

    0 for equal answers. W stands for the number of positive cells, which a teacher's answers do not tell.
    """

    def __init__(self, temperature: float = TEMPERATURE) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Knowledge, teacher: Knowledge) -> Tensor:
        """The distance of a student's answers from a teacher's; a number."""
        mine, theirs = student.outputs, teacher.outputs
        weight = theirs["cls_logits"].sigmoid().amax(dim=2)
        total = _bernoulli_kl(mine["cls_logits"] / self.temperature, theirs["cls_logits"] / self.temperature).sum()
        total = self.temperature**2 * total
        boxes = F.l1_loss(mine["bbox_regression"], theirs["bbox_regression"], reduction="none").mean(dim=2)
        total = total + (weight * boxes).sum()
        if "bbox_ctrness" in mine:
            centreness = _bernoulli_kl(mine["bbox_ctrness"], theirs["bbox_ctrness"]).squeeze(2)
            total = total + (weight * centreness).sum()
        return total / weight.sum().clamp(min=1.0)


def _bernoulli_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(σ(teacher) ‖ σ(student)) of each logit; cross-entropy less entropy, so that it is 0 for equal ones."""
    probability = teacher.sigmoid()
    cross = F.binary_cross_entropy_with_logits(student, probability, reduction="none")
    entropy = F.binary_cross_entropy_with_logits(teacher, probability, reduction="none")
    return torch.sub(cross, entropy)
