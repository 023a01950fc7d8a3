"""How many anchors of a batch torchvision's dense detectors take for objects: what their losses are divided by."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.ops import box_iou

from msad_cli.frame import Frame
from msad_cli.models.detectors.dense import Target
from msad_cli.models.detectors.object_anchors import anchors_by_cell


def count_positives(
    detector: FCOS | RetinaNet, pyramid: Sequence[Tensor], frame: Frame, targets: Sequence[Target]
) -> Tensor:
    """The batch's number of positive anchors, () int64, with the boxes of the N targets in the frame."""
    levels = [each.flatten(0, 1) for each in anchors_by_cell(detector.anchor_generator, pyramid, frame)]
    found = [_positive(detector, levels, target["boxes"]).sum() for target in targets if len(target["boxes"])]
    return torch.stack(found).sum() if found else levels[0].new_zeros((), dtype=torch.int64)


def _positive(detector: FCOS | RetinaNet, levels: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """(M, 4) boxes -> of all levels' anchors (h·w·A, 4) each, which are positive: (anchors,) bool."""
    if isinstance(detector, RetinaNet):
        matched: Tensor = detector.proposal_matcher(box_iou(boxes, torch.cat(list(levels))))
        return matched >= 0
    # FCOS (Tian et al., 2019): near the box's centre, inside it, and 4 to 8 strides from its farthest side; the finest
    # level has no lower bound, the coarsest no upper one. An anchor's side is its level's stride.
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    positive = []
    for i, anchors in enumerate(levels):
        points = (anchors[:, None, :2] + anchors[:, None, 2:]) / 2
        stride = anchors[0, 2] - anchors[0, 0]
        near = (points - centres).abs().amax(dim=2) < detector.center_sampling_radius * stride
        sides = torch.cat([points - boxes[:, :2], boxes[:, 2:] - points], dim=2)
        farthest = sides.amax(dim=2)
        least = 0 if i == 0 else 4 * stride
        most = torch.inf if i == len(levels) - 1 else 8 * stride
        positive.append((near & (sides.amin(dim=2) > 0) & (farthest > least) & (farthest < most)).any(dim=1))
    return torch.cat(positive)
