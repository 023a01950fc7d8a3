"""What a two-stage detector answers where another one looks: at regions that are given, not at its own proposals."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from msad_cli.models.on_features import Detection
from msad_cli.models.regions_on_features import named_maps, region_detections, region_proposals
from msad_cli.structures.frame import Frame


class Regions(NamedTuple):
    """Where a detector looks in a batch: its best proposals of each picture, (P, 4) in HR pixels, and what it found."""

    proposals: list[Tensor]
    found: list[Detection]


def find_regions(detector: FasterRCNN, pyramid: Sequence[Tensor], frame: Frame, most: int) -> Regions:
    """A detector's regions on a pyramid in this frame, at most so many a picture. Without gradients."""
    with torch.no_grad():
        proposals = region_proposals(detector, pyramid, frame)
        found = region_detections(detector, pyramid, frame, proposals)
    return Regions([each[:most] for each in proposals], found)


class ProposalAnswers(NamedTuple):
    """What the proposal network says of the A anchors of all levels: logits (N, A) and codes of boxes (N, A, 4)."""

    logits: Tensor
    codes: Tensor


class RegionAnswers(NamedTuple):
    """What the heads say of R proposals and D found objects, all as float32.

    Attributes:
        logits: of classes, (R, C + 1), the background's first.
        codes: of boxes, (R, C + 1, 4).
        masks: logits of the found class's mask, (D, 28, 28); empty for a detector without masks.
        places: logits of each keypoint's place, (D, K, 56, 56); empty for a detector without keypoints.
    """

    logits: Tensor
    codes: Tensor
    masks: Tensor
    places: Tensor


def proposal_answers(detector: FasterRCNN, pyramid: Sequence[Tensor]) -> ProposalAnswers:
    """A detector's answers on a pyramid."""
    logits, codes = detector.rpn.head([each.float() for each in pyramid])
    return ProposalAnswers(
        torch.cat([each.flatten(1) for each in logits], dim=1).float(),
        torch.cat([each.unflatten(1, (-1, 4)).movedim(2, -1).flatten(1, 3) for each in codes], dim=1).float(),
    )


def region_answers(detector: FasterRCNN, pyramid: Sequence[Tensor], frame: Frame, regions: Regions) -> RegionAnswers:
    """A detector's answers on a pyramid in this frame, at regions that may be another one's."""
    heads, features, sizes = detector.roi_heads, named_maps(pyramid), list(frame.image_sizes)
    logits, codes = heads.box_predictor(heads.box_head(heads.box_roi_pool(features, regions.proposals, sizes)))
    boxes = [each["boxes"] for each in regions.found]
    masks = places = logits.new_empty(0)
    if heads.has_mask():
        of_classes = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(features, boxes, sizes)))
        labels = torch.cat([each["labels"] for each in regions.found])
        masks = of_classes[torch.arange(len(labels), device=labels.device), labels]
    if heads.has_keypoint():
        places = heads.keypoint_predictor(heads.keypoint_head(heads.keypoint_roi_pool(features, boxes, sizes)))
    return RegionAnswers(logits.float(), codes.float().unflatten(1, (-1, 4)), masks.float(), places.float())
