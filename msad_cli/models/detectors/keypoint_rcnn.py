"""Keypoint R-CNN (He et al., "Mask R-CNN", ICCV 2017): torchvision's, with heads of any size."""

from torch import Tensor, nn
from torchvision.models.detection import KeypointRCNN
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor

from msad_cli.models.decode.keypoints import keypoint_places
from msad_cli.models.detectors.base import HeadRows, PublishedWeights
from msad_cli.models.detectors.roi_objects import OBJECT_CELLS, RoIObjectsKind
from msad_cli.models.detectors.rois import hr_roi_align
from msad_cli.models.detectors.two_stage import BOX_ROWS, TWO_STAGE_NAMES, two_stage_options
from msad_cli.models.pyramid import AlignedBackbone


class KeypointRCNNKind(RoIObjectsKind):
    """Keypoint R-CNN on given features."""

    rows = HeadRows(classes=BOX_ROWS, keypoints="roi_heads.keypoint_predictor.kps_score_lowres")
    published = PublishedWeights(
        name="keypointrcnn_resnet50_fpn",
        old_names=TWO_STAGE_NAMES,
        without_epsilon=True,
    )

    def build(self, backbone: AlignedBackbone, classes: int) -> KeypointRCNN:
        """At 256 channels and 4 convolutions torchvision's own in shape."""
        spec = self.spec
        return KeypointRCNN(
            backbone,
            keypoint_roi_pool=hr_roi_align(OBJECT_CELLS),
            keypoint_head=KeypointRCNNHeads(spec.channels, (2 * spec.channels,) * (2 * spec.head_convs)),
            keypoint_predictor=_KeypointPredictor(2 * spec.channels, len(spec.keypoints)),
            **two_stage_options(self, classes),
        )

    @property
    def object_pool(self) -> nn.Module:
        """The keypoints' RoIAlign."""
        pool: nn.Module = self.core.roi_heads.keypoint_roi_pool
        return pool

    def object_outputs(self, rois: Tensor) -> Tensor:
        """(R, C, 14, 14) -> logits of each keypoint's place (R, K, 56, 56)."""
        heads = self.core.roi_heads
        logits: Tensor = heads.keypoint_predictor(heads.keypoint_head(rois))
        return logits

    def decode_objects(self, logits: Tensor, boxes: Tensor, labels: Tensor) -> list[Tensor]:
        """Keypoints (R, K, 3), x and y in pixels of the boxes and 1, and their logits (R, K)."""
        return list(keypoint_places(logits, boxes))

    def object_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """All, (R, K, 56, 56): keypoints have no classes."""
        return logits


class _KeypointPredictor(KeypointRCNNPredictor):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        heatmaps: Tensor = super().forward(x)
        return heatmaps.float()
