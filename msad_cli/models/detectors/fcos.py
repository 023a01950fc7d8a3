"""FCOS (Tian et al., ICCV 2019): torchvision's, with a head of any size."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.fcos import FCOSHead

from msad_cli.frame import Frame
from msad_cli.models.decode.limits import Limits
from msad_cli.models.detectors.anchors import anchors_by_cell, anchors_of, octave_anchors
from msad_cli.models.detectors.base import BACKGROUND, FPN_NAMES, HeadRows, Outputs, PublishedWeights, Target
from msad_cli.models.detectors.dense import DenseKind, MatchingHead, dense_options
from msad_cli.models.detectors.towers import by_anchor, depthwise_tower, set_towers
from msad_cli.models.pyramid import AlignedBackbone
from msad_cli.models.whole_batch import batch_divisor, in_several_processes

FIRST_DISTANCE = 1.0
"""Strides from the middle of a cell to each side of its box, before anything is learnt."""


class FCOSKind(DenseKind):
    """FCOS on given features: a class, the distances to a box's sides and a centreness at each cell."""

    rows = HeadRows(classes={"head.classification_head.cls_logits": 1})
    published = PublishedWeights(name="fcos_resnet50_fpn", old_names=FPN_NAMES)
    deployed = Limits(score=0.2)

    def build(self, backbone: AlignedBackbone, classes: int) -> FCOS:
        """At 256 channels and 4 convolutions torchvision's own in shape."""
        spec = self.spec
        # One square anchor a cell, as large as the level's stride in HR pixels: torchvision's own default.
        anchors = anchors_of(spec, [(2**level,) for level in spec.levels], (1.0,))
        head = _Head(spec.channels, 1, classes, num_convs=spec.head_convs)
        if spec.head_norm == "batch":
            set_towers(head, self.level_towers())
        elif spec.head_depthwise:
            set_towers(head, [depthwise_tower(spec.channels, spec.head_convs) for _ in range(2)])
        # From 0, many cells of many seeds start with boxes without an area, whose GIoU has no gradient.
        nn.init.constant_(head.regression_head.bbox_reg.bias, FIRST_DISTANCE)
        return FCOS(backbone, classes, anchor_generator=anchors, head=head, **dense_options(self))

    def decoded(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Distances in strides (R, 4) from the middles of anchors (R, 4) -> boxes (R, 4)."""
        boxes: Tensor = self.core.box_coder.decode(deltas, anchors)
        return boxes

    def scores(self, outputs: Outputs) -> Tensor:
        """The geometric mean of class probability and centreness."""
        classes = outputs["cls_logits"][..., len(BACKGROUND) :].sigmoid()
        return (classes * outputs["bbox_ctrness"].sigmoid()).sqrt()

    def matches(self, targets: Sequence[Target], anchors: list[Tensor], per_level: list[int]) -> list[Tensor]:
        """By centre, size and level, as torchvision has it."""
        matches: list[Tensor] = self.core.compute_loss(list(targets), None, anchors, per_level)
        return matches

    def positive_weights(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """What the centreness is to be there: 1 in the middle of an object, 0 at its edges. As FCOS weighs its boxes.

        Per axis, the nearer side's distance as a share of the farther one's; of both shares, the geometric mean.
        """
        middles = (anchors[:, :2] + anchors[:, 2:]) / 2
        before, behind = middles - boxes[:, :2], boxes[:, 2:] - middles
        return (torch.minimum(before, behind) / torch.maximum(before, behind)).prod(dim=1).sqrt()

    def object_anchors(self, pyramid: Sequence[Tensor], frame: Frame) -> list[Tensor]:
        """RetinaNet's nine a cell. Its own, a square as large as the stride, marks a place and stands for no object."""
        return anchors_by_cell(octave_anchors(self.spec), pyramid, frame)

    def regression_outputs(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """`bbox_regression` and `bbox_ctrness`."""
        head = self.core.head.regression_head
        # Distances to a box's sides are never negative.
        return {
            "bbox_regression": by_anchor([F.relu(head.bbox_reg(each)) for each in features], 4),
            "bbox_ctrness": by_anchor([head.bbox_ctrness(each) for each in features], 1),
        }


class _Head(MatchingHead, FCOSHead):  # type: ignore[misc]
    """Torchvision's, but for the number of positive cells that its losses are divided by: it is the whole batch's."""

    def compute_loss(
        self,
        targets: list[Target],
        head_outputs: dict[str, Tensor] | None,
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor] | list[Tensor]:
        losses: dict[str, Tensor] = super().compute_loss(targets, head_outputs, anchors, matched_idxs)
        if head_outputs is None or not in_several_processes():
            return losses
        positives = torch.stack([(each >= 0).sum() for each in matched_idxs]).sum()
        factor = positives.clamp(min=1) / batch_divisor(positives)
        return {name: factor * loss for name, loss in losses.items()}
