"""Distillation of a two-stage detector's answers (after Chen et al., NeurIPS 2017; this form is our choice).

Student and teacher have one grid and one frame, so that the student is asked about the teacher's own regions.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.distillation.losses.output_kd import TEMPERATURE, bernoulli_kl
from msad_cli.models.detectors.dense import Target
from msad_cli.models.detectors.two_stage_outputs import (
    BoxAnswers,
    ProposalAnswers,
    best_proposals,
    box_answers,
    found_objects,
    mask_answers,
    place_answers,
    proposal_answers,
)
from msad_cli.models.spec import DetectorSpec
from msad_cli.models.whole_batch import batch_divisor

OBJECTS = 0.25
"""Of the regions, whose masks or keypoints are compared: as many as learning has among those that it samples."""


class RegionKD(nn.Module):
    """What a proposal network says of each anchor, and the heads of each region, by the teacher's own certainty.

    With o the anchors' logits, w = σ(o^T), z the class logits of the teacher's R best proposals, f = 1 − background's
    share of softmax(z^T), s the scores of the best R/4 objects that the teacher finds among them, and d codes of boxes,
    those of regions for the teacher's best class:

        objectness = Σ KL(σ(o^T) ‖ σ(o^S)) / Σ w              proposals = Σ w·mean|d^S − d^T| / Σ w
        classes = T²·Σ KL(softmax(z^T/T) ‖ softmax(z^S/T)) / R   boxes = Σ f·mean|d^S − d^T| / Σ f
        masks = Σ s·mean KL(σ(m^T) ‖ σ(m^S)) / Σ s,  or
        keypoints = Σ s·mean over keypoints of KL(softmax over places) / Σ s

    All divisors are of the whole batch and at least 1. 0 for equal answers.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec) -> None:
        super().__init__()
        if student.scales != "aligned":
            raise ValueError(
                f"method output-kd: {student.detector} learns answers about regions on aligned grids alone"
            )
        self.regions = student.rois

    def forward(self, student: Knowledge, teacher: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The distances of a student's answers from a teacher's."""
        frame, core = teacher.frame, teacher.detector.core
        mine, theirs = (student.detector.core, student.pyramid), (core, teacher.pyramid)
        losses = _of_anchors(proposal_answers(*mine), proposal_answers(*theirs))
        proposals = best_proposals(*theirs, frame, self.regions)
        answers = box_answers(*theirs, frame, proposals)
        losses |= _of_regions(box_answers(*mine, frame, proposals), answers)
        found = found_objects(core, answers, proposals, frame, max(1, round(OBJECTS * self.regions)))
        scores = torch.cat([each["scores"] for each in found])
        certain = batch_divisor(scores.sum())
        if core.roi_heads.has_mask():
            distances = bernoulli_kl(mask_answers(*mine, frame, found), mask_answers(*theirs, frame, found))
            losses["masks"] = (scores * distances.flatten(1).mean(dim=1)).sum() / certain
        if core.roi_heads.has_keypoint():
            places = (place_answers(*each, frame, found).flatten(2) for each in (mine, theirs))
            losses["keypoints"] = (scores * _softmax_kl(*places).mean(dim=1)).sum() / certain
        return losses


def _of_anchors(mine: ProposalAnswers, theirs: ProposalAnswers) -> dict[str, Tensor]:
    weight = theirs.logits.sigmoid()
    anchors = batch_divisor(weight.sum())
    distances = F.l1_loss(mine.codes, theirs.codes, reduction="none").mean(dim=2)
    return {
        "objectness": bernoulli_kl(mine.logits, theirs.logits).sum() / anchors,
        "proposals": (weight * distances).sum() / anchors,
    }


def _of_regions(mine: BoxAnswers, theirs: BoxAnswers) -> dict[str, Tensor]:
    objects = theirs.logits.softmax(dim=1)[:, 1:]
    weight, best = objects.sum(dim=1), objects.argmax(dim=1) + 1
    rows = torch.arange(len(best), device=best.device)
    distances = F.l1_loss(mine.codes[rows, best], theirs.codes[rows, best], reduction="none").mean(dim=1)
    classes = _softmax_kl(mine.logits / TEMPERATURE, theirs.logits / TEMPERATURE).sum()
    return {
        "classes": TEMPERATURE**2 * classes / batch_divisor(weight.new_tensor(float(len(weight)))),
        "boxes": (weight * distances).sum() / batch_divisor(weight.sum()),
    }


def _softmax_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax(teacher) ‖ softmax(student)) over the last dimension."""
    return F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="none", log_target=True).sum(-1)
