"""Shared by tests: detectors."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, KeypointRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from msad_cli.models.backbones.resnet import ResNetBackbone
from msad_cli.models.detectors.base import Target
from msad_cli.models.detectors.kinds import DETECTORS
from msad_cli.models.detectors.points import PointsHead
from msad_cli.models.detectors.shared_head import SharedHead
from msad_cli.models.spec import DetectorSpec
from support.specs import spec, target

POINTS = ("nose", "left", "right")
ALIKE = ("fasterrcnn", "cascade_maskrcnn", "keypointrcnn")
"""They share most with Mask R-CNN: where what is their own is not the matter, their turn is slow."""
EACH = tuple(pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in DETECTORS)
TORCHVISIONS = ("fcos", "retinanet", "fasterrcnn", "maskrcnn", "keypointrcnn")
"""Those whose networks are torchvision's."""
EACH_OF_TORCHVISION = tuple(
    pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in TORCHVISIONS
)
TWO_STAGES = tuple(name for name, entry in DETECTORS.items() if entry.family == "two-stage")


ORDINARY = ((128, 128), (128, 256))


def spec_of(detector: str, **changes: object) -> DetectorSpec:
    """A small teacher of this detector, with changes."""
    return spec(detector=detector, keypoints=POINTS if detector == "keypointrcnn" else (), **changes)


def images(sizes: tuple[tuple[int, int], ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]


def targets(sizes: tuple[tuple[int, int], ...]) -> list[Target]:
    """One object in the first image, two in the second, with masks and keypoints."""
    generator = torch.Generator().manual_seed(2)
    found = []
    boxes = (target([10.0, 20.0, 60.0, 90.0]), target([5.0, 5.0, 50.0, 60.0], [60.0, 10.0, 120.0, 120.0]))
    for (height, width), each in zip(sizes, boxes, strict=True):
        count = len(each["boxes"])
        corners, sides = each["boxes"][:, None, :2], (each["boxes"][:, 2:] - each["boxes"][:, :2])[:, None]
        places = corners + sides * torch.rand(count, 3, 2, generator=generator)
        seen = torch.tensor([2.0, 1.0, 0.0]).expand(count, 3)[..., None]
        masks = torch.randint(0, 2, (count, height, width), generator=generator, dtype=torch.uint8)
        found.append({**each, "masks": masks, "keypoints": torch.cat([places, seen], dim=2)})
    return found


def lively(core: Any) -> None:
    """Untrained, RetinaNet, RTMDet and RepPoints predict nothing above the threshold, and RepPoints no area."""
    if isinstance(getattr(core, "head", None), PointsHead):
        nn.init.normal_(core.head.cls_logits.weight, std=0.2)
        nn.init.constant_(core.head.cls_logits.bias, -2.0)
        nn.init.normal_(core.head.first_points.weight, std=0.5)
    if isinstance(getattr(core, "head", None), SharedHead):
        for layer in core.head.rtm_cls:
            nn.init.normal_(layer.get_parameter("weight"), std=0.2)
            nn.init.constant_(layer.get_parameter("bias"), -2.0)
    if isinstance(core, RetinaNet):
        nn.init.normal_(core.head.classification_head.cls_logits.weight, std=0.2)
        nn.init.constant_(core.head.classification_head.cls_logits.bias, -2.0)


def silence_background(*cores: Any) -> None:
    """Dense heads of two classes: ours never detect the background; in torchvision's it takes no places of others
    either, then."""
    for core in cores:
        if isinstance(core, FCOS | RetinaNet):
            nn.init.constant_(core.head.classification_head.cls_logits.bias.view(-1, 3)[:, 0], -100.0)


def stock(name: str, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> Any:
    """Torchvision's own detector and pyramid, small, of 2 classes and 10 detections; only its backbone is ours."""
    backbone = ResNetBackbone("resnet18", 0.25, norm)
    finest = DETECTORS[name].finest_level
    levels = range(finest, 6)
    backbone = BackboneWithFPN(
        backbone,
        {f"layer{level - 1}": str(level - finest) for level in levels},
        [backbone.channels[level] for level in levels],
        64,
        extra_blocks=LastLevelP6P7(64, 64) if finest == 3 else None,
    )
    options = {"min_size": 128, "max_size": 512, "size_divisible": 128}
    if name == "fcos":
        head = FCOSHead(64, 1, 3, num_convs=1)
        return FCOS(backbone, 3, head=head, score_thresh=0.05, detections_per_img=10, **options)
    if name == "retinanet":
        return RetinaNet(backbone, 3, detections_per_img=10, **options)
    options |= {"box_detections_per_img": 10, "box_head": TwoMLPHead(64 * 49, 256)}
    options["box_predictor"] = FastRCNNPredictor(256, 3)
    if name == "fasterrcnn":
        return FasterRCNN(backbone, **options)
    if name == "maskrcnn":
        head = MaskRCNNHeads(64, (64,), 1)
        return MaskRCNN(backbone, mask_head=head, mask_predictor=MaskRCNNPredictor(64, 64, 3), **options)
    head, predictor = KeypointRCNNHeads(64, (128, 128)), KeypointRCNNPredictor(128, len(POINTS))
    return KeypointRCNN(backbone, keypoint_head=head, keypoint_predictor=predictor, **options)
