"""A fifth detector in one file: a class and the distances to a box's sides at each cell. Nothing of torchvision's."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image, generalized_box_iou_loss

from msad_cli.frame import Frame
from msad_cli.models.decode.limits import SCORE_THRESHOLD
from msad_cli.models.decode.nms import DROPPED, suppress, taken, top
from msad_cli.models.detectors.base import Detection, DetectorKind, Outputs, Part, Target
from msad_cli.models.pyramid import AlignedBackbone

SIZE = 4
"""Objects of up to so many strides belong to a level, the coarsest having all larger ones."""
OVERLAP = 0.5


class Toy(nn.Module):
    """Its names in a model file: `core.backbone…`, `core.head…`."""

    def __init__(self, backbone: AlignedBackbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        channels = backbone.out_channels
        self.head = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, classes + 4, 1)
        )
        # Few cells hold an object.
        nn.init.constant_(self.head[2].get_parameter("bias").data[:classes], -2.5)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Five maps (N, C, h, w) -> (N, cells, classes + 4)."""
        return torch.cat([self.head(each).flatten(2).mT for each in pyramid], dim=1)


class ToyKind(DetectorKind):
    def build(self, backbone: AlignedBackbone, classes: int) -> Toy:
        return Toy(backbone, classes - 1)  # it needs no background

    @property
    def head(self) -> nn.Module:
        head: nn.Module = self.core.head
        return head

    def outputs(self, pyramid: Sequence[Tensor]) -> dict[str, Tensor]:
        logits, distances = self.core(pyramid).float().split([len(self.spec.classes), 4], dim=2)
        return {"cls_logits": logits, "bbox_regression": F.softplus(distances)}

    def parts(self) -> dict[str, Part]:
        return {"head": Part((self.head,), self.core)}

    def losses(
        self, pyramid: Sequence[Tensor], frame: Frame, targets: Sequence[Target], outputs: Outputs | None = None
    ) -> dict[str, Tensor]:
        outputs = outputs or self.outputs(pyramid)
        strides = [frame.padded[0] // each.shape[2] for each in pyramid]
        boxes = self.boxes(pyramid, frame, outputs)
        wanted = torch.zeros_like(outputs["cls_logits"])
        found, true = [], []
        for image, target in enumerate(targets):
            for box, label in zip(target["boxes"], target["labels"], strict=True):
                cell = _cell(box, strides, pyramid)
                wanted[image, cell, label - 1] = 1
                found.append(boxes[image, cell])
                true.append(box)
        classes = F.binary_cross_entropy_with_logits(outputs["cls_logits"], wanted, reduction="sum")
        regression = boxes.sum() * 0
        if found:
            regression = generalized_box_iou_loss(torch.stack(found), torch.stack(true)).sum()
        count = max(1, len(found))
        return {"classification": classes / count, "bbox_regression": regression / count}

    def boxes(self, pyramid: Sequence[Tensor], frame: Frame, outputs: Outputs) -> Tensor:
        return self._boxes(pyramid, [frame.padded[0] // each.shape[2] for each in pyramid], outputs)

    def _boxes(self, pyramid: Sequence[Tensor], strides: Sequence[int], outputs: Outputs) -> Tensor:
        middles, sides = [], []
        for grid, stride in zip(pyramid, strides, strict=True):
            y, x = (torch.arange(side, device=grid.device) + 0.5 for side in grid.shape[2:])
            middle = torch.stack([each.flatten() for each in torch.meshgrid(x, y, indexing="xy")], dim=1) * stride
            middles.append(middle)
            sides.append(torch.full_like(middle[:, :1], stride))
        middle, deltas = torch.cat(middles), outputs["bbox_regression"] * torch.cat(sides)
        return torch.cat([middle - deltas[..., :2], middle + deltas[..., 2:]], dim=2)

    def decode(
        self, pyramid: Sequence[Tensor], strides: Sequence[tuple[int, int]], size: tuple[int, int]
    ) -> tuple[Tensor, ...]:
        outputs = self.outputs(pyramid)
        boxes = clip_boxes_to_image(self._boxes(pyramid, [down for down, _ in strides], outputs), size)
        scores, labels = outputs["cls_logits"].sigmoid().max(dim=2)
        scores = torch.where(scores > SCORE_THRESHOLD, scores, DROPPED)
        most = self.spec.detections_per_image
        scores, places = top(suppress(boxes, scores, labels, len(self.spec.classes), OVERLAP, most), most)
        return taken(boxes, places), scores, labels.gather(1, places) + 1

    def detect(self, pyramid: Sequence[Tensor], frame: Frame, outputs: Outputs | None = None) -> list[Detection]:
        strides = [(frame.padded[0] // each.shape[2], frame.padded[1] // each.shape[3]) for each in pyramid]
        rows = zip(*self.decode(pyramid, strides, frame.padded), frame.image_sizes, strict=True)
        return [
            {"boxes": clip_boxes_to_image(boxes, size)[kept], "scores": scores[kept], "labels": labels[kept]}
            for boxes, scores, labels, size in rows
            for kept in [scores > DROPPED]
        ]


def _cell(box: Tensor, strides: Sequence[int], pyramid: Sequence[Tensor]) -> int:
    """The place, among the cells of all levels, of the one around a box's middle."""
    side = float((box[2:] - box[:2]).max())
    level = next((i for i, stride in enumerate(strides) if side <= SIZE * stride), len(strides) - 1)
    x, y = ((box[:2] + box[2:]) / 2 / strides[level]).int().tolist()
    before = sum(each.shape[2] * each.shape[3] for each in pyramid[:level])
    height, width = pyramid[level].shape[2:]
    return int(before + min(y, height - 1) * width + min(x, width - 1))
