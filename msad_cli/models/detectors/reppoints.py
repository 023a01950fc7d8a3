"""RepPoints (Yang et al., ICCV 2019): head, losses and decoding on an aligned pyramid."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from msad_cli.frame import Frame
from msad_cli.models.detectors.base import HeadRows, Outputs, Target
from msad_cli.models.detectors.cells import CellsDetector, CellsKind, boxes_of, cells_of
from msad_cli.models.detectors.dense import weighted
from msad_cli.models.detectors.point_matches import NEITHER, by_overlap, by_place
from msad_cli.models.detectors.points import PointsHead
from msad_cli.models.pyramid import AlignedBackbone
from msad_cli.models.whole_batch import batch_divisor

OVERLAP = 0.5
"""IoU above which the lower score of a class goes."""
UNIT = 4
"""Strides: in units of so many, distances of boxes are compared."""
BETA = 1 / 9
"""Where the smooth L1 loss becomes linear, in these units."""
FIRST, REFINED = 0.5, 1.0
"""Weights of both boxes' losses."""


class RepPointsKind(CellsKind):
    """RepPoints on given features: at each cell nine points, whose mean and spread make a box, twice, and a class."""

    rows = HeadRows(classes={"head.cls_logits": 1}, background=False)

    def build(self, backbone: AlignedBackbone, classes: int) -> CellsDetector:
        """At 256 channels and 3 convolutions the published one with group normalisation in shape."""
        spec = self.spec
        head = PointsHead(spec.channels, len(spec.classes), spec.head_convs, spec.head_depthwise)
        return CellsDetector(backbone, head, OVERLAP, spec.detections_per_image)

    def competing(self, pyramid: Sequence[Tensor]) -> list[int]:
        """The cells of each level."""
        return [each.shape[2] * each.shape[3] for each in pyramid]

    def losses(
        self, pyramid: Sequence[Tensor], frame: Frame, targets: Sequence[Target], outputs: Outputs | None = None
    ) -> dict[str, Tensor]:
        """`classification`, the focal loss, `bbox_first` and `bbox_regression`, smooth L1 of corners.

        The first boxes' cells are found by place and size, those of the rest by the first boxes' overlaps. Each is a
        sum over the batch, divided by its number of such cells.
        """
        outputs = outputs or self.outputs(pyramid)
        points, strides = cells_of(pyramid, self.strides)
        first, refined = (boxes_of(points, strides, outputs[name]) for name in ("bbox_first", "bbox_regression"))
        by_first = _matched(targets, first, lambda _, objects: by_place(points, strides, objects))
        by_box = _matched(targets, first.detach(), by_overlap)
        return {
            "classification": self._focal(outputs["cls_logits"], by_box, targets),
            "bbox_first": FIRST * _apart(first, by_first, strides, targets),
            "bbox_regression": REFINED * _apart(refined, by_box, strides, targets),
        }

    def _focal(self, logits: Tensor, matches: Tensor, targets: Sequence[Target]) -> Tensor:
        if self.class_weights is not None:
            logits = weighted(logits, self.class_weights[1:].to(logits))
        wanted = torch.zeros_like(logits)
        for each, match, target in zip(wanted, matches, targets, strict=True):
            cells = (match >= 0).nonzero()[:, 0]
            each[cells, target["labels"][match[cells]] - 1] = 1
        focal: Tensor = sigmoid_focal_loss(logits, wanted).sum(dim=2)
        return (focal * (matches != NEITHER)).sum() / batch_divisor((matches >= 0).sum())


def _matched(targets: Sequence[Target], boxes: Tensor, match: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The matches (N, A) of boxes (N, A, 4) with the objects of each image."""
    return torch.stack([match(own, each["boxes"]) for own, each in zip(boxes, targets, strict=True)])


def _apart(boxes: Tensor, matches: Tensor, strides: Tensor, targets: Sequence[Target]) -> Tensor:
    """Smooth L1 of boxes (N, A, 4) from their objects, where they have any, by `matches` (N, A)."""
    positive = matches >= 0
    objects = [each["boxes"][match[match >= 0]] for each, match in zip(targets, matches, strict=True)]
    unit = (UNIT * strides).expand_as(matches)[positive][:, None]
    apart = F.smooth_l1_loss(boxes[positive] / unit, torch.cat(objects) / unit, beta=BETA, reduction="sum")
    return apart / batch_divisor(positive.sum())
