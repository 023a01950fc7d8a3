"""Cascade Mask R-CNN (Cai & Vasconcelos, "Cascade R-CNN", CVPR 2018 and TPAMI 2019) on torchvision's parts."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.roi_heads import RoIHeads

from msad_cli.models.decode.limits import SCORE_THRESHOLD
from msad_cli.models.detectors.base import HeadRows
from msad_cli.models.detectors.cascade import STAGES, CascadeHeads, OneBoxPredictor, Stage
from msad_cli.models.detectors.mask_rcnn import MaskPredictor, of_class
from msad_cli.models.detectors.roi_objects import OBJECT_CELLS, RoIObjectsKind
from msad_cli.models.detectors.rois import hr_roi_align
from msad_cli.models.detectors.two_stage import BOX_CELLS, two_stage_options
from msad_cli.models.pyramid import AlignedBackbone

OVERLAP = 0.5
"""IoU above which the lower score of a class goes."""
OBJECTS = 0.25
"""Of the RoIs that are sampled, how many stand for objects at most."""
LAYERS = ("box_predictor.cls_score", "mask_predictor.mask_fcn_logits")


class CascadeMaskRCNNKind(RoIObjectsKind):
    """Cascade Mask R-CNN on given features: class scores and masks are means over its stages, boxes the last one's."""

    rows = HeadRows(classes={f"roi_heads.stages.{i}.{layer}": 1 for i in range(len(STAGES)) for layer in LAYERS})

    def build(self, backbone: AlignedBackbone, classes: int) -> FasterRCNN:
        """At 256 channels and 4 convolutions the published one in shape."""
        core = FasterRCNN(backbone, **two_stage_options(self, classes))
        # Of torchvision's detector the proposals stay.
        core.roi_heads = CascadeHeads([self._stage(each, classes) for each in STAGES])
        return core

    def _stage(self, stage: Stage, classes: int) -> RoIHeads:
        spec, hidden = self.spec, 4 * self.spec.channels
        return RoIHeads(
            hr_roi_align(BOX_CELLS),
            TwoMLPHead(spec.channels * BOX_CELLS**2, hidden),
            OneBoxPredictor(hidden, classes),
            fg_iou_thresh=stage.overlap,
            bg_iou_thresh=stage.overlap,
            batch_size_per_image=spec.learning.rois,
            positive_fraction=OBJECTS,
            bbox_reg_weights=tuple(1 / each for each in stage.deviations),
            score_thresh=SCORE_THRESHOLD,
            nms_thresh=OVERLAP,
            detections_per_img=spec.detections_per_image,
            mask_roi_pool=hr_roi_align(OBJECT_CELLS),
            mask_head=MaskRCNNHeads(spec.channels, (spec.channels,) * spec.head_convs, 1),
            mask_predictor=MaskPredictor(spec.channels, spec.channels, classes),
        )

    @property
    def stages(self) -> Sequence[RoIHeads]:
        """All three."""
        return list(self.core.roi_heads.stages)

    @property
    def object_pool(self) -> nn.Module:
        """The masks' RoIAlign."""
        pool: nn.Module = self.stages[0].mask_roi_pool
        return pool

    def object_outputs(self, rois: Tensor) -> Tensor:
        """(R, C, 14, 14) -> every stage's logits of each class's mask (R, 3, classes + 1, 28, 28)."""
        logits: Tensor = self.core.roi_heads.mask_logits(rois)
        return logits

    def decode_objects(self, logits: Tensor, boxes: Tensor, labels: Tensor) -> list[Tensor]:
        """The mask of each object's class, probabilities (R, 28, 28)."""
        return [of_class(logits.sigmoid().mean(dim=1), labels)]

    def object_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Every stage's for each object's class, (R, 3, 28, 28)."""
        return logits[torch.arange(len(labels), device=labels.device), :, labels]
