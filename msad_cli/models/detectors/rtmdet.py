"""RTMDet (Lyu et al., arXiv 2212.07784): head, loss and decoding on an aligned CSPNeXt-PAFPN."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image, generalized_box_iou_loss

from msad_cli.frame import Frame
from msad_cli.models.backbones.csp_blocks import Norm
from msad_cli.models.backbones.cspnext_sizes import SIZES
from msad_cli.models.backbones.normalisation import FUSED, freeze_view, norm_layer, select_view
from msad_cli.models.backbones.resnet import Backbone
from msad_cli.models.decode.limits import SCORE_THRESHOLD
from msad_cli.models.decode.nms import DROPPED, best_pairs, suppress, taken, top
from msad_cli.models.detectors.anchors import anchors_by_cell, octave_anchors
from msad_cli.models.detectors.base import (
    Detection,
    DetectorKind,
    Outputs,
    PublishedWeights,
    Target,
    Tower,
    finite,
)
from msad_cli.models.detectors.dense import weighted
from msad_cli.models.detectors.shared_head import SharedHead
from msad_cli.models.detectors.soft_labels import Assigned, assign
from msad_cli.models.path_pyramid import PathBackbone
from msad_cli.models.pyramid import AlignedBackbone
from msad_cli.models.spec import DetectorSpec
from msad_cli.models.whole_batch import batch_divisor

NECK_BLOCKS = 3
"""Of each CSP layer of the neck, with CSPNeXt-l; with backbones of others there is one."""
EXPONENTIAL = ("cspnext_l", "cspnext_x")
"""Backbones whose published heads predict the logarithm of distances, where those of the smaller ones predict them."""
PUBLISHED = {
    f"cspnext_{size}": f"https://download.openmmlab.com/mmdetection/v3.0/rtmdet/rtmdet_{size}_8xb32-300e_coco/"
    f"rtmdet_{size}_8xb32-300e_coco_{name}.pth"
    for size, name in {
        "tiny": "20220902_112414-78e30dcc",
        "s": "20220905_161602-387a891e",
        "m": "20220719_112220-229f527c",
        "l": "20220719_112030-5a0be7c4",
        "x": "20220715_230555-cc79b9ae",
    }.items()
}
OVERLAP = 0.65
"""IoU above which the lower score of a class goes."""
CANDIDATES = 1000
"""The best pairs of a cell and a class of an image, which suppression looks at."""
BOX_WEIGHT = 2.0


class RTMDet(nn.Module):
    """The network. Its names in a model file: `core.backbone…`, `core.head…`.

    Attributes:
        nms_thresh: IoU above which the lower score of a class goes.
        score_thresh: detections scored lower are dropped.
        detections_per_img: how many detections an image has at most.
    """

    def __init__(self, backbone: AlignedBackbone, head: SharedHead, detections: int) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.nms_thresh, self.score_thresh, self.detections_per_img = OVERLAP, SCORE_THRESHOLD, detections


class RTMDetKind(DetectorKind):
    """RTMDet on given features: at each cell the quality of a box for every class, and the distances to its sides.

    A cell (i, j) of stride s stands at (s·j, s·i) in the frame, without half a cell's offset.
    """

    published = PublishedWeights(
        name="fcos_resnet50_fpn",
        class_rows={f"head.rtm_cls.{level}": 1 for level in range(3)},
        background=False,
        urls=PUBLISHED,
    )

    @classmethod
    def above(cls, spec: DetectorSpec, backbone: Backbone, ks: Sequence[int]) -> AlignedBackbone:
        """CSPNeXt-PAFPN."""
        name = spec.low_backbone if spec.low_backbone and ks[0] > 1 else spec.backbone
        blocks = SIZES[name].blocks(NECK_BLOCKS) if name in SIZES else 1
        return PathBackbone(backbone, spec.channels, ks, blocks, _norm(spec, ks))

    def build(self, backbone: AlignedBackbone, classes: int) -> RTMDet:
        """At the channels of the backbone's C3 and 2 convolutions the published one in shape."""
        spec = self.spec
        views = (*spec.ks, *([FUSED] if spec.fuses else [])) if spec.scales == "aligned" else (1,)
        head = SharedHead(
            spec.channels,
            len(spec.classes),
            spec.head_convs,
            len(spec.levels),
            _norm(spec, views),
            spec.head_depthwise,
            spec.backbone in EXPONENTIAL,
        )
        if spec.role == "student" and spec.fuses:
            # What it learns from is its fused maps alone.
            for k in spec.ks:
                freeze_view(head, k)
        return RTMDet(backbone, head, spec.detections_per_image)

    @property
    def head(self) -> nn.Module:
        """Both towers and what stands on them."""
        head: nn.Module = self.core.head
        return head

    @property
    def post_processing(self) -> RTMDet:
        """The core itself."""
        core: RTMDet = self.core
        return core

    def fold(self) -> None:
        """Each level of the head has norms of its own behind shared convolutions."""
        self.core.head.unshare()
        super().fold()

    def drop_below(self, score: float) -> None:
        """By its own threshold."""
        self.core.score_thresh = max(self.core.score_thresh, score)

    def outputs(self, pyramid: Sequence[Tensor]) -> dict[str, Tensor]:
        """The head's raw outputs: logits of the quality, and distances in strides."""
        found: dict[str, Tensor] = self.core.head(list(pyramid))
        return found

    def losses(
        self, pyramid: Sequence[Tensor], frame: Frame, targets: Sequence[Target], outputs: Outputs | None = None
    ) -> dict[str, Tensor]:
        """`classification`, the quality focal loss, and `bbox_regression`, GIoU by quality with weight 2.

        Both are sums over the batch, divided by its sum of assigned quality.
        """
        return self._losses([outputs or self.outputs(pyramid)], pyramid, frame, targets)[0]

    def losses_of_views(
        self, pyramids: Sequence[Sequence[Tensor]], frame: Frame, targets: Sequence[Target]
    ) -> list[dict[str, Tensor]]:
        """As `losses` for each; all are assigned at once, each by its own predictions.

        Args:
            pyramids: of the views, k ascending, and perhaps the fused one.
        """
        outputs = []
        for view, pyramid in zip((*self.spec.ks, FUSED), pyramids, strict=False):
            select_view(self.head, view)
            outputs.append(self.outputs(pyramid))
        return self._losses(outputs, pyramids[0], frame, targets)

    def _losses(
        self, outputs: Sequence[Outputs], pyramid: Sequence[Tensor], frame: Frame, targets: Sequence[Target]
    ) -> list[dict[str, Tensor]]:
        points, strides = _cells(pyramid, self._strides())
        together = {name: torch.cat([each[name] for each in outputs]) for name in ("cls_logits", "bbox_regression")}
        logits, boxes = together["cls_logits"], _boxes(points, strides, together["bbox_regression"])
        assigned = assign(points, strides, boxes.detach(), logits.detach(), [*targets] * len(outputs))
        if self.class_weights is not None:
            logits = weighted(logits, self.class_weights[1:])
        classes = quality_focal(logits, assigned)
        # Boxes elsewhere are no object's, and their GIoU with nothing is no number.
        positive = assigned.positive
        overlaps = boxes.new_zeros(positive.shape).masked_scatter(
            positive, generalized_box_iou_loss(boxes[positive], assigned.boxes[positive])
        )
        regression = (assigned.quality * overlaps).sum(dim=1) + 0 * boxes.sum(dim=(1, 2))
        found = []
        for part in range(len(outputs)):
            images = slice(part * len(targets), (part + 1) * len(targets))
            quality = batch_divisor(assigned.quality[images].sum())
            found.append(
                {
                    "classification": classes[images].sum() / quality,
                    "bbox_regression": BOX_WEIGHT * regression[images].sum() / quality,
                }
            )
        return found

    def detect(self, pyramid: Sequence[Tensor], frame: Frame, outputs: Outputs | None = None) -> list[Detection]:
        """The best pairs of cell and class, decoded, clipped and suppressed."""
        boxes, scores, labels = self._candidates(pyramid, self._strides(), outputs or self.outputs(pyramid))
        sizes = frame.image_sizes
        clipped = torch.stack([clip_boxes_to_image(*each) for each in zip(boxes, sizes, strict=True)])
        rows = zip(*self._suppressed(clipped, scores, labels), strict=True)
        found = [(boxes, scores, labels, scores > DROPPED) for boxes, scores, labels in rows]
        return [
            finite({"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]})
            for boxes, scores, labels, kept in found
        ]

    def decode(
        self, pyramid: Sequence[Tensor], strides: Sequence[tuple[int, int]], size: tuple[int, int]
    ) -> tuple[Tensor, ...]:
        """Boxes, scores and labels."""
        boxes, scores, labels = self._candidates(pyramid, self._strides(), self.outputs(pyramid))
        return self._suppressed(clip_boxes_to_image(boxes, size), scores, labels)

    def _candidates(
        self, pyramid: Sequence[Tensor], strides: Sequence[int], outputs: Outputs
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best boxes (N, B, 4), not clipped, scores (N, B), `DROPPED` below the threshold, and labels (N, B)."""
        pairs, limits = outputs["cls_logits"].sigmoid(), self.limits
        scores, places, classes = best_pairs(pairs, limits.candidates or CANDIDATES, limits.one_class)
        boxes = _boxes(*_cells(pyramid, strides), outputs["bbox_regression"])
        return taken(boxes, places), torch.where(scores > self.core.score_thresh, scores, DROPPED), classes + 1

    def _suppressed(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        core = self.core
        most = core.detections_per_img
        scores, places = top(suppress(boxes, scores, labels - 1, len(self.spec.classes), core.nms_thresh, most), most)
        return taken(boxes, places), scores, labels.gather(1, places)

    def _strides(self) -> list[int]:
        """Pixels of the frame a cell of each level, down and across: images are padded to whole cells of them all."""
        return [2**level for level in self.spec.levels]

    def boxes(self, pyramid: Sequence[Tensor], frame: Frame, outputs: Outputs) -> Tensor:
        """The box of each cell, (N, cells, 4)."""
        return _boxes(*_cells(pyramid, self._strides()), outputs["bbox_regression"])

    def object_anchors(self, pyramid: Sequence[Tensor], frame: Frame) -> list[Tensor]:
        """RetinaNet's nine a cell, of its three finest levels."""
        return anchors_by_cell(octave_anchors(self.spec), pyramid, frame)

    def weigh_positives(self, pyramid: Sequence[Tensor], frame: Frame, targets: Sequence[Target]) -> Tensor:
        """The quality that is assigned by what the head predicts now."""
        outputs = self.outputs(pyramid)
        points, strides = _cells(pyramid, self._strides())
        boxes = _boxes(points, strides, outputs["bbox_regression"])
        return assign(points, strides, boxes, outputs["cls_logits"], targets).quality.sum()

    def tower_start(self, tower: Tower, pyramid: Sequence[Tensor], convs: int) -> list[Tensor]:
        """The first convolutions, the last one's activation too: SiLU keeps both signs, which a cut wants."""
        maps: list[Tensor] = self.core.head.through(tower, pyramid, 0, convs)
        return maps

    def tower_outputs(self, tower: Tower, maps: Sequence[Tensor], convs: int) -> dict[str, Tensor]:
        """`cls_logits` of the classification tower, `bbox_regression` of the other."""
        head: SharedHead = self.core.head
        return head.outputs_of(tower, head.through(tower, maps, convs, None))


def quality_focal(logits: Tensor, assigned: Assigned) -> Tensor:
    """The quality focal loss (Li et al., 2020) of each cell with β = 2, summed over classes: (N, A).

    Σ over classes of BCE(σ(x), y)·(y − σ(x))², y being the cell's quality for the class of its object and else 0.
    """
    wanted = torch.zeros_like(logits).scatter(2, assigned.labels[..., None], assigned.quality[..., None])
    apart = (wanted - logits.sigmoid()) ** 2
    return (F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * apart).sum(dim=2)


def _norm(spec: DetectorSpec, views: Sequence[int]) -> Norm:
    """The normalisation above the backbone: batch statistics if that has them, else groups, as nothing is learnt here
    that could be frozen."""
    return norm_layer("batch" if spec.norm == "batch" else "group", views)


def _cells(pyramid: Sequence[Tensor], strides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Where the cells of all levels stand, (A, 2), x and y in pixels of the frame; and (A,) their strides."""
    points, sides = [], []
    for grid, stride in zip(pyramid, strides, strict=True):
        y, x = (stride * torch.arange(side, device=grid.device, dtype=torch.float32) for side in grid.shape[2:])
        level = torch.stack([each.flatten() for each in torch.meshgrid(x, y, indexing="xy")], dim=1)
        points.append(level)
        sides.append(torch.full_like(level[:, 0], stride))
    return torch.cat(points), torch.cat(sides)


def _boxes(points: Tensor, strides: Tensor, distances: Tensor) -> Tensor:
    """Boxes (N, A, 4), corners, of distances (N, A, 4) in strides to the left, top, right and bottom."""
    pixels = distances * strides[:, None]
    return torch.cat([points - pixels[..., :2], points + pixels[..., 2:]], dim=2)
