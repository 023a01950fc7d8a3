"""Distillation of a two-stage detector's predictions (after Chen et al., NeurIPS 2017; this form is our choice).

Student and teacher have one grid and one frame, so that the student predicts at the teacher's own proposals.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.distillation.losses.output_kd import TEMPERATURE, bernoulli_kl
from msad_cli.models.detectors.base import Target
from msad_cli.models.detectors.roi_objects import RoIObjectsKind
from msad_cli.models.detectors.two_stage import BoxOutputs, ProposalOutputs, TwoStageKind
from msad_cli.models.spec import DetectorSpec
from msad_cli.models.whole_batch import batch_divisor

OBJECTS = 0.25
"""Of the proposals, whose masks or keypoints are compared: as many as learning has among those that it samples."""


class RoIKD(nn.Module):
    """What a proposal network says of each anchor, and the heads of each RoI, by the teacher's own certainty.

    With o the anchors' logits, w = σ(o^T), z the class logits of the teacher's R best proposals, f = 1 − background's
    share of softmax(z^T), s the scores of the best R/4 objects that the teacher finds among them, and d box deltas,
    those of RoIs for the teacher's best class:

        objectness = Σ KL(σ(o^T) ‖ σ(o^S)) / Σ w              proposals = Σ w·mean|d^S − d^T| / Σ w
        classes = T²·Σ KL(softmax(z^T/T) ‖ softmax(z^S/T)) / R   boxes = Σ f·mean|d^S − d^T| / Σ f
        masks = Σ s·mean KL(σ(m^T) ‖ σ(m^S)) / Σ s,  or, or neither,
        keypoints = Σ s·mean over keypoints of KL(softmax over places) / Σ s

    All divisors are of the whole batch and at least 1. 0 for equal predictions. A detector of several stages has the
    RoIs of all of them, each stage's being those that the teacher's stage before it has made.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec) -> None:
        super().__init__()
        if student.scales != "aligned":
            raise ValueError(f"method output-kd: {student.detector} learns predictions at RoIs on aligned grids alone")
        self.rois = student.learning.rois
        self.task = student.task

    def forward(self, student: Knowledge, teacher: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The distances of a student's predictions from a teacher's."""
        kinds, frame = (_two_stages(student), _two_stages(teacher)), teacher.frame
        pyramids = (student.pyramid, teacher.pyramid)
        both = list(zip(kinds, pyramids, strict=True))
        with torch.no_grad():
            proposals = [each[: self.rois] for each in kinds[1].proposals(teacher.pyramid, frame)]
        rois, theirs = kinds[1].run_stages(teacher.pyramid, frame, proposals)
        mine = kinds[0].box_outputs(student.pyramid, frame, rois)
        losses = _of_anchors(*(kind.proposal_outputs(pyramid) for kind, pyramid in both))
        losses |= _of_rois(_together(mine), _together(theirs))
        if self.task in DISTANCES:
            found = kinds[1].found_objects(theirs, rois, frame, max(1, round(OBJECTS * self.rois)))
            scores = torch.cat([each["scores"] for each in found])
            logits = (_with_objects(kind).outputs_at(pyramid, frame, found) for kind, pyramid in both)
            losses[self.task] = (scores * DISTANCES[self.task](*logits)).sum() / batch_divisor(scores.sum())
        return losses


def _two_stages(known: Knowledge) -> TwoStageKind:
    kind = known.detector.kind
    assert isinstance(kind, TwoStageKind), f"{kind.spec.detector} has no RoIs"
    return kind


def _with_objects(kind: TwoStageKind) -> RoIObjectsKind:
    assert isinstance(kind, RoIObjectsKind), f"{kind.spec.detector} has boxes alone"
    return kind


def _together(stages: Sequence[BoxOutputs]) -> BoxOutputs:
    """The RoIs of all stages."""
    return BoxOutputs(*(torch.cat(each) for each in zip(*stages, strict=True)))


def _of_anchors(mine: ProposalOutputs, theirs: ProposalOutputs) -> dict[str, Tensor]:
    weight = theirs.logits.sigmoid()
    anchors = batch_divisor(weight.sum())
    distances = F.l1_loss(mine.deltas, theirs.deltas, reduction="none").mean(dim=2)
    return {
        "objectness": bernoulli_kl(mine.logits, theirs.logits).sum() / anchors,
        "proposals": (weight * distances).sum() / anchors,
    }


def _of_rois(mine: BoxOutputs, theirs: BoxOutputs) -> dict[str, Tensor]:
    objects = theirs.logits.softmax(dim=1)[:, 1:]
    weight, best = objects.sum(dim=1), objects.argmax(dim=1) + 1
    rows = torch.arange(len(best), device=best.device)
    distances = F.l1_loss(mine.deltas[rows, best], theirs.deltas[rows, best], reduction="none").mean(dim=1)
    classes = _softmax_kl(mine.logits / TEMPERATURE, theirs.logits / TEMPERATURE).sum()
    return {
        "classes": TEMPERATURE**2 * classes / batch_divisor(weight.new_tensor(float(len(weight)))),
        "boxes": (weight * distances).sum() / batch_divisor(weight.sum()),
    }


def _of_masks(mine: Tensor, theirs: Tensor) -> Tensor:
    """Logits (D, h, w) -> (D,)."""
    return bernoulli_kl(mine, theirs).flatten(1).mean(dim=1)


def _of_keypoints(mine: Tensor, theirs: Tensor) -> Tensor:
    """Logits (D, K, h, w) -> (D,)."""
    return _softmax_kl(mine.flatten(2), theirs.flatten(2)).mean(dim=1)


DISTANCES = {"masks": _of_masks, "keypoints": _of_keypoints}
"""By task that has more than boxes: how far apart two predictions of each object are."""


def _softmax_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax(teacher) ‖ softmax(student)) over the last dimension."""
    return F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="none", log_target=True).sum(-1)
