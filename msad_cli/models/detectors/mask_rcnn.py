"""Mask R-CNN (He et al., ICCV 2017): torchvision's, with heads of any size."""

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from msad_cli.models.detectors.base import HeadRows, PublishedWeights
from msad_cli.models.detectors.roi_objects import OBJECT_CELLS, RoIObjectsKind
from msad_cli.models.detectors.rois import hr_roi_align
from msad_cli.models.detectors.two_stage import BOX_ROWS, TWO_STAGE_NAMES, two_stage_options
from msad_cli.models.pyramid import AlignedBackbone

MASK_NAMES = {rf"(roi_heads\.mask_head)\.mask_fcn{i + 1}\.(weight|bias)": rf"\1.{i}.0.\2" for i in range(4)}


class MaskRCNNKind(RoIObjectsKind):
    """Mask R-CNN on given features."""

    rows = HeadRows(classes=BOX_ROWS | {"roi_heads.mask_predictor.mask_fcn_logits": 1})
    published = PublishedWeights(
        name="maskrcnn_resnet50_fpn",
        old_names=TWO_STAGE_NAMES | MASK_NAMES,
        without_epsilon=True,
    )

    def build(self, backbone: AlignedBackbone, classes: int) -> MaskRCNN:
        """At 256 channels and 4 convolutions torchvision's own in shape."""
        spec = self.spec
        return MaskRCNN(
            backbone,
            mask_roi_pool=hr_roi_align(OBJECT_CELLS),
            mask_head=MaskRCNNHeads(spec.channels, (spec.channels,) * spec.head_convs, 1),
            mask_predictor=MaskPredictor(spec.channels, spec.channels, classes),
            **two_stage_options(self, classes),
        )

    @property
    def object_pool(self) -> nn.Module:
        """The masks' RoIAlign."""
        pool: nn.Module = self.core.roi_heads.mask_roi_pool
        return pool

    def object_outputs(self, rois: Tensor) -> Tensor:
        """(R, C, 14, 14) -> logits of each class's mask (R, classes + 1, 28, 28)."""
        heads = self.core.roi_heads
        logits: Tensor = heads.mask_predictor(heads.mask_head(rois))
        return logits

    def decode_objects(self, logits: Tensor, boxes: Tensor, labels: Tensor) -> list[Tensor]:
        """The mask of each object's class, probabilities (R, 28, 28)."""
        return [of_class(logits.sigmoid(), labels)]

    def object_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Those of each object's class, (R, 28, 28)."""
        return logits[torch.arange(len(labels), device=labels.device), labels]


def of_class(masks: Tensor, labels: Tensor) -> Tensor:
    """Of masks (R, classes + 1, h, w) those of each object's class, (R, h, w), in a form that graphs have."""
    return masks.gather(1, labels[:, None, None, None].expand(-1, -1, *masks.shape[2:]))[:, 0]


class MaskPredictor(MaskRCNNPredictor):  # type: ignore[misc]
    """Torchvision's, whose logits are float32 in mixed precision too."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = super().forward(x)
        return logits.float()
