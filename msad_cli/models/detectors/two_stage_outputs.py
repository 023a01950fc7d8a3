"""What a two-stage detector answers where another one looks: at regions that are given, not at its own proposals."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from msad_cli.frame import Frame
from msad_cli.models.detectors.dense import Detection, finite
from msad_cli.models.detectors.two_stage import named_maps, region_proposals


class ProposalAnswers(NamedTuple):
    """What the proposal network says of the A anchors of all levels: logits (N, A) and codes of boxes (N, A, 4)."""

    logits: Tensor
    codes: Tensor


class BoxAnswers(NamedTuple):
    """What the box head says of R proposals: logits of classes (R, C + 1), the background's first, and codes of boxes
    (R, C + 1, 4)."""

    logits: Tensor
    codes: Tensor


def proposal_answers(detector: FasterRCNN, pyramid: Sequence[Tensor]) -> ProposalAnswers:
    """A detector's answers on a pyramid, as float32."""
    logits, codes = detector.rpn.head([each.float() for each in pyramid])
    return ProposalAnswers(
        torch.cat([each.flatten(1) for each in logits], dim=1).float(),
        torch.cat([each.unflatten(1, (-1, 4)).movedim(2, -1).flatten(1, 3) for each in codes], dim=1).float(),
    )


@torch.no_grad()
def best_proposals(detector: FasterRCNN, pyramid: Sequence[Tensor], frame: Frame, most: int) -> list[Tensor]:
    """Where a detector looks first, of each image at most so many boxes (P, 4) in HR pixels."""
    return [each[:most] for each in region_proposals(detector, pyramid, frame)]


def box_answers(
    detector: FasterRCNN, pyramid: Sequence[Tensor], frame: Frame, proposals: Sequence[Tensor]
) -> BoxAnswers:
    """A detector's answers on a pyramid at proposals that may be another one's, as float32."""
    heads = detector.roi_heads
    pooled = heads.box_roi_pool(named_maps(pyramid), list(proposals), list(frame.image_sizes))
    logits, codes = heads.box_predictor(heads.box_head(pooled))
    return BoxAnswers(logits.float(), codes.float().unflatten(1, (-1, 4)))


@torch.no_grad()
def found_objects(
    detector: FasterRCNN, answers: BoxAnswers, proposals: Sequence[Tensor], frame: Frame, most: int
) -> list[Detection]:
    """What a detector finds by its own answers: boxes in HR pixels, scores and labels of each image's best, at most
    so many."""
    found = detector.roi_heads.postprocess_detections(
        answers.logits, answers.codes.flatten(1), list(proposals), list(frame.image_sizes)
    )
    rows = (dict(zip(("boxes", "scores", "labels"), row, strict=True)) for row in zip(*found, strict=True))
    return [{name: each[:most] for name, each in finite(row).items()} for row in rows]


def mask_answers(detector: FasterRCNN, pyramid: Sequence[Tensor], frame: Frame, found: Sequence[Detection]) -> Tensor:
    """Logits (D, 28, 28) of each object's mask, of the class that it was found as, as float32."""
    heads = detector.roi_heads
    pooled = heads.mask_roi_pool(named_maps(pyramid), [each["boxes"] for each in found], list(frame.image_sizes))
    of_classes = heads.mask_predictor(heads.mask_head(pooled))
    labels = torch.cat([each["labels"] for each in found])
    masks: Tensor = of_classes[torch.arange(len(labels), device=labels.device), labels].float()
    return masks


def place_answers(detector: FasterRCNN, pyramid: Sequence[Tensor], frame: Frame, found: Sequence[Detection]) -> Tensor:
    """Logits (D, K, 56, 56) of each keypoint's place in an object's box, as float32."""
    heads = detector.roi_heads
    pooled = heads.keypoint_roi_pool(named_maps(pyramid), [each["boxes"] for each in found], list(frame.image_sizes))
    places: Tensor = heads.keypoint_predictor(heads.keypoint_head(pooled)).float()
    return places
