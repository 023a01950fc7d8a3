"""RTMDet (Lyu et al., arXiv 2212.07784): head, loss and decoding on an aligned CSPNeXt-PAFPN.

Cells are assigned otherwise than there (`task_aligned.py`).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from msad_cli.frame import Frame
from msad_cli.models.backbones.csp_blocks import Norm
from msad_cli.models.backbones.cspnext_sizes import SIZES
from msad_cli.models.backbones.normalisation import norm_layer
from msad_cli.models.backbones.resnet import Backbone
from msad_cli.models.detectors.base import HeadRows, Outputs, PublishedWeights, Target, Tower
from msad_cli.models.detectors.cells import CellsDetector, CellsKind, boxes_of, cells_of
from msad_cli.models.detectors.dense import weighted
from msad_cli.models.detectors.shared_head import SharedHead
from msad_cli.models.detectors.task_aligned import Assigned, assign
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
BOX_WEIGHT = 2.0


class RTMDetKind(CellsKind):
    """RTMDet on given features: at each cell the quality of a box for every class, and the distances to its sides."""

    rows = HeadRows(classes={f"head.rtm_cls.{level}": 1 for level in range(3)}, background=False)
    published = PublishedWeights(name="fcos_resnet50_fpn", urls=PUBLISHED)

    @classmethod
    def above(cls, spec: DetectorSpec, backbone: Backbone, ks: Sequence[int]) -> AlignedBackbone:
        """CSPNeXt-PAFPN."""
        name = spec.low_backbone if spec.low_backbone and ks[0] > 1 else spec.backbone
        blocks = SIZES[name].blocks(NECK_BLOCKS) if name in SIZES else 1
        return PathBackbone(backbone, spec.channels, ks, blocks, _norm(spec, ks))

    def build(self, backbone: AlignedBackbone, classes: int) -> CellsDetector:
        """At the channels of the backbone's C3 and 2 convolutions the published one in shape."""
        spec = self.spec
        head = SharedHead(
            spec.channels,
            len(spec.classes),
            spec.head_convs,
            len(spec.levels),
            _norm(spec, self.head_views),
            spec.head_depthwise,
            spec.backbone in EXPONENTIAL,
        )
        self.freeze_unseen(head)
        return CellsDetector(backbone, head, OVERLAP, spec.detections_per_image)

    def competing(self, pyramid: Sequence[Tensor]) -> list[int]:
        """All cells of an image with each other."""
        return [sum(each.shape[2] * each.shape[3] for each in pyramid)]

    def fold(self) -> None:
        """Each level of the head has norms of its own behind shared convolutions."""
        self.core.head.unshare()
        super().fold()

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
        return self._losses(self.outputs_of_views(pyramids), pyramids[0], frame, targets)

    def _losses(
        self, outputs: Sequence[Outputs], pyramid: Sequence[Tensor], frame: Frame, targets: Sequence[Target]
    ) -> list[dict[str, Tensor]]:
        points, strides = cells_of(pyramid, self.strides)
        together = {name: torch.cat([each[name] for each in outputs]) for name in ("cls_logits", "bbox_regression")}
        logits, boxes = together["cls_logits"], boxes_of(points, strides, together["bbox_regression"])
        assigned = assign(points, strides, boxes.detach(), logits.detach(), [*targets] * len(outputs))
        if self.class_weights is not None:
            logits = weighted(logits, self.class_weights[1:].to(logits))
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

    def weigh_positives(self, pyramid: Sequence[Tensor], frame: Frame, targets: Sequence[Target]) -> Tensor:
        """The quality that is assigned by what the head predicts now."""
        outputs = self.outputs(pyramid)
        points, strides = cells_of(pyramid, self.strides)
        boxes = boxes_of(points, strides, outputs["bbox_regression"])
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
