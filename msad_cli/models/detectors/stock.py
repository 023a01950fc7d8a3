"""Torchvision's four detectors around an aligned pyramid, with its names, so that its weights load.

At 256 channels and 4 convolutions every head is torchvision's own in shape; other sizes scale it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, KeypointRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import Conv2dNormActivation, MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from msad_cli.models.pyramid import LEVELS, AlignedBackbone
from msad_cli.models.spec import DetectorSpec
from msad_cli.models.whole_batch import batch_divisor, in_several_processes

BACKGROUND = (0,)
"""The label that no object has, as in torchvision's own weights; an untrained head answers it all the same."""

SCORE_THRESHOLD = 0.05
"""Detections scored lower are dropped. COCO's AP counts weak detections too; torchvision's 0.2 would cut them off."""

BOX_CELLS, POINT_CELLS = 7, 14
"""Sides of the grids that RoIAlign samples for boxes, and for masks or keypoints."""

GROUPS = 32
"""Of the towers' group normalisation, as in torchvision's FCOS."""


def build_stock(spec: DetectorSpec, backbone: AlignedBackbone) -> FCOS | RetinaNet | FasterRCNN:
    """The detector that a spec names, its fusion and its second backbone aside."""
    build = {"fcos": _fcos, "retinanet": _retinanet, "maskrcnn": _maskrcnn, "keypointrcnn": _keypointrcnn}
    return build[spec.detector](spec, backbone, len(spec.classes) + len(BACKGROUND))


def _fcos(spec: DetectorSpec, backbone: AlignedBackbone, classes: int) -> FCOS:
    # One square anchor a cell, as large as the level's stride in HR pixels: torchvision's own default.
    anchors = AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((1.0,),) * LEVELS)
    head = _FCOSHead(spec.channels, 1, classes, num_convs=spec.head_convs)
    if spec.head_depthwise:
        _set_towers(head, [depthwise_tower(spec.channels, spec.head_convs) for _ in range(2)])
    return FCOS(backbone, classes, anchor_generator=anchors, head=head, **_dense_options(spec))


class _Remembering:
    """A dense head that keeps, of the last targets, which object each anchor of an image was given (below 0: none)."""

    assigned: list[Tensor]

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        self.assigned = matched_idxs
        losses: dict[str, Tensor] = super().compute_loss(  # type: ignore[misc]
            targets, head_outputs, anchors, matched_idxs
        )
        return losses


class _FCOSHead(_Remembering, FCOSHead):  # type: ignore[misc]
    """Torchvision's, but for the number of positive cells that its losses are divided by: it is the whole batch's."""

    def compute_loss(self, *batch: Any) -> dict[str, Tensor]:
        losses = super().compute_loss(*batch)
        if not in_several_processes():
            return losses
        positives = torch.stack([(each >= 0).sum() for each in self.assigned]).sum()
        factor = positives.clamp(min=1) / batch_divisor(positives)
        return {name: factor * loss for name, loss in losses.items()}


class _RetinaNetHead(_Remembering, RetinaNetHead):  # type: ignore[misc]
    """Torchvision's."""


def _retinanet(spec: DetectorSpec, backbone: AlignedBackbone, classes: int) -> RetinaNet:
    # 3 sizes by 3 ratios a cell: torchvision's own default.
    sizes = tuple((side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))) for side in (32, 64, 128, 256, 512))
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * LEVELS)
    head = _RetinaNetHead(spec.channels, anchors.num_anchors_per_location()[0], classes)
    if spec.head_depthwise:
        _set_towers(head, [depthwise_tower(spec.channels, spec.head_convs) for _ in range(2)])
    elif spec.head_convs != len(head.classification_head.conv):
        # Torchvision's own constructor knows only towers of 4.
        _set_towers(head, [_plain_tower(spec.channels, spec.head_convs) for _ in range(2)])
    return RetinaNet(backbone, classes, anchor_generator=anchors, head=head, **_dense_options(spec))


def _dense_options(spec: DetectorSpec) -> dict[str, Any]:
    return {
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
        "score_thresh": SCORE_THRESHOLD,
        "detections_per_img": spec.detections_per_image,
    }


def _maskrcnn(spec: DetectorSpec, backbone: AlignedBackbone, classes: int) -> MaskRCNN:
    return MaskRCNN(
        backbone,
        mask_roi_pool=_roi_align(POINT_CELLS),
        mask_head=MaskRCNNHeads(spec.channels, (spec.channels,) * spec.head_convs, 1),
        mask_predictor=_MaskPredictor(spec.channels, spec.channels, classes),
        **_region_options(spec, classes),
    )


def _keypointrcnn(spec: DetectorSpec, backbone: AlignedBackbone, classes: int) -> KeypointRCNN:
    return KeypointRCNN(
        backbone,
        keypoint_roi_pool=_roi_align(POINT_CELLS),
        keypoint_head=KeypointRCNNHeads(spec.channels, (2 * spec.channels,) * (2 * spec.head_convs)),
        keypoint_predictor=_KeypointPredictor(2 * spec.channels, len(spec.keypoints)),
        **_region_options(spec, classes),
    )


def _region_options(spec: DetectorSpec, classes: int) -> dict[str, Any]:
    anchors = AnchorGenerator(((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * LEVELS)
    hidden = 4 * spec.channels
    return {
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
        "rpn_anchor_generator": anchors,
        "rpn_head": _ProposalHead(spec.channels, anchors.num_anchors_per_location()[0]),
        "box_roi_pool": _roi_align(BOX_CELLS),
        "box_head": TwoMLPHead(spec.channels * BOX_CELLS**2, hidden),
        "box_predictor": _BoxPredictor(hidden, classes),
        "box_batch_size_per_image": spec.rois,
        "box_score_thresh": SCORE_THRESHOLD,
        "box_detections_per_img": spec.detections_per_image,
    }


def _roi_align(cells: int) -> MultiScaleRoIAlign:
    """Reads the four finest of five levels, P2–P5 of the HR view."""
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], cells, sampling_ratio=2)
    # Left to itself, it takes the scales from the first batch that it meets, and wrong ones if that is padded by more
    # than 41 %; a frame has the same strides always.
    pool.scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    pool.map_levels = LevelMapper(2, 5, pool.canonical_scale, pool.canonical_level)
    return pool


def _set_towers(head: FCOSHead | RetinaNetHead, towers: list[nn.Sequential]) -> None:
    head.classification_head.conv, head.regression_head.conv = towers


def _plain_tower(channels: int, convs: int) -> nn.Sequential:
    tower = nn.Sequential(*(Conv2dNormActivation(channels, channels, norm_layer=None) for _ in range(convs)))
    for module in tower.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return tower


def depthwise_tower(channels: int, convs: int) -> nn.Sequential:
    """Depthwise separable convolutions (Howard et al., 2017) in place of `convs` 3×3 ones, 8 to 9 times as cheap.

    Each is 3×3 depthwise, 1×1, group normalisation, ReLU; (N, C, h, w) -> (N, C, h, w).
    """
    layers: list[nn.Module] = []
    for _ in range(convs):
        depthwise = nn.Conv2d(channels, channels, kernel_size=3, padding=1, groups=channels, bias=False)
        pointwise = nn.Conv2d(channels, channels, kernel_size=1, bias=False)
        for conv in (depthwise, pointwise):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
        layers += [depthwise, pointwise, nn.GroupNorm(GROUPS, channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


# Under autocast a head answers in half precision; boxes of a thousand pixels and their losses need float32. Dense heads
# are called by our own code, which sees to that; those of the two-stage detectors are called by torchvision's.


class _ProposalHead(RPNHead):  # type: ignore[misc]
    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        objectness, deltas = super().forward(x)
        return [each.float() for each in objectness], [each.float() for each in deltas]


class _BoxPredictor(FastRCNNPredictor):  # type: ignore[misc]
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, deltas = super().forward(x)
        return scores.float(), deltas.float()


class _MaskPredictor(MaskRCNNPredictor):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = super().forward(x)
        return logits.float()


class _KeypointPredictor(KeypointRCNNPredictor):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        heatmaps: Tensor = super().forward(x)
        return heatmaps.float()
