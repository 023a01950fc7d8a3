"""Cross-head distillation (Wang et al., "CrossKD", CVPR 2024)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.distillation.parts.moments import channel_moments, standardised
from msad_cli.models.detectors.base import Target, Tower
from msad_cli.models.spec import DetectorSpec
from msad_cli.models.whole_batch import batch_divisor


class Constants(NamedTuple):
    """After which convolution of the teacher's towers, of 4, the student's maps enter; the weights of both parts; how
    far boxes (…, 4) are from others, (…)."""

    entry: int
    classes: float
    boxes: float
    apart: Callable[[Tensor, Tensor], Tensor]


LEAST_IOU = 1e-6


def log_iou_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """−ln IoU of boxes (…, 4), corners, with others: (…), at most −ln 1e-6."""
    shared = torch.minimum(found[..., 2:], wanted[..., 2:]) - torch.maximum(found[..., :2], wanted[..., :2])
    overlap = shared.clamp(min=0).prod(dim=-1)
    areas = [(each[..., 2:] - each[..., :2]).prod(dim=-1) for each in (found, wanted)]
    # Two boxes without area have no union.
    iou = overlap / (areas[0] + areas[1] - overlap).clamp(min=LEAST_IOU)
    return -iou.clamp(min=LEAST_IOU).log()


OFFICIAL = {
    "retinanet": Constants(3, 1.0, 1.0, generalized_box_iou_loss),
    "fcos": Constants(2, 0.4, 0.75, log_iou_loss),
}
"""Those of the official code, by detector."""
OTHERWISE = OFFICIAL["retinanet"]
"""For other dense detectors; a reconstruction."""
THINNEST = 1.0
"""Pixels of the frame: a box of the teacher with a shorter side is none, and its IoU would be rounding errors."""


class CrossKD(nn.Module):
    """Distance of what the teacher's head predicts from a student's half-made maps from what it predicts from its own.

    The maps (N, C, h, w) of the student's towers after convolution i get the means and deviations that the teacher's
    have there, channel by channel, and go through the rest of the teacher's frozen towers. Of the predictions x̂, b̂:

        classes = Σ |σ(x̂) − σ(x^T)| · BCE(σ(x̂), σ(x^T)) / N_pos,    boxes = Σ w·d(b̂, b^T) / N_pos

    w is the teacher's best class score, d the GIoU loss for RetinaNet and −ln IoU for FCOS. N_pos is the batch's number
    of positive anchors, for FCOS their sum of centreness, and at least 1. 0 for equal towers.
    So the student's own last convolutions learn from the targets alone, and the two teachings do not contradict each
    other. Boxes count where the two networks' are comparable: a student that is not aligned learns none.

    i, both weights, d, N_pos and the scheme are the official code's, for towers of 4 convolutions. Reconstruction: i
    for shorter towers, of which one convolution of the teacher remains; a 1×1 convolution, trained with the student
    and no part of it, where the heads' channels differ; RetinaNet's anchors between the two thresholds, and those on
    padding, count; boxes thinner than a pixel do not; N_pos of an image or batch without objects.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec) -> None:
        super().__init__()
        if not student.dense:
            raise ValueError(f"method crosskd: {student.detector} has no head that predicts at every cell")
        self.constants = OFFICIAL.get(teacher.detector, OTHERWISE)
        self.entry = min(self.constants.entry, teacher.head_convs - 1)
        self.taken = min(self.entry, student.head_convs)
        same = student.channels == teacher.channels
        towers = ["classification", "regression"] if student.scales == "aligned" else ["classification"]
        # Without a bias: the standardisation behind it would take it away again.
        self.adapters = nn.ModuleDict(
            {
                tower: nn.Identity() if same else nn.Conv2d(student.channels, teacher.channels, 1, bias=False)
                for tower in towers
            }
        )

    def forward(self, student: Knowledge, teacher: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The distances of the crossed predictions from a teacher's; targets in the student's frame."""
        crossed, theirs = self._crossed("classification", student, teacher), teacher.outputs
        with torch.no_grad():
            positives = batch_divisor(student.detector.kind.weigh_positives(student.pyramid, student.frame, targets))
        classes = quality_focal(crossed["cls_logits"], theirs["cls_logits"]).sum() / positives
        losses = {"classes": self.constants.classes * classes}
        if "bbox_regression" in theirs:
            both = (self._crossed("regression", student, teacher), theirs)
            found, wanted = (teacher.detector.boxes(teacher.pyramid, teacher.frame, each) for each in both)
            real = (wanted[..., 2:] - wanted[..., :2] >= THINNEST).all(dim=2)
            weight = theirs["cls_logits"].sigmoid().amax(dim=2) * real
            boxes = (weight * self.constants.apart(found, wanted)).sum() / positives
            losses["boxes"] = self.constants.boxes * boxes
        return losses

    def _crossed(self, tower: Tower, student: Knowledge, teacher: Knowledge) -> dict[str, Tensor]:
        """The teacher's outputs for the student's maps, (N, anchors, …) each."""
        mine = student.detector.kind.tower_start(tower, student.pyramid, self.taken)
        with torch.no_grad():
            theirs = teacher.detector.kind.tower_start(tower, teacher.pyramid, self.entry)
        restyled = []
        for s, t in zip(mine, theirs, strict=True):
            mean, deviation = channel_moments(t.float())
            restyled.append(standardised(self.adapters[tower](s).float()) * deviation + mean)
        return teacher.detector.kind.tower_outputs(tower, restyled, self.entry)


def quality_focal(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy of two logits' probabilities times their distance, elementwise; 0 for equal ones (β = 1)."""
    wanted = teacher.sigmoid()
    distance = (student.sigmoid() - wanted).abs()
    return distance * F.binary_cross_entropy_with_logits(student, wanted, reduction="none")
