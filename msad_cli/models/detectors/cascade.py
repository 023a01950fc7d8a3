"""The second stage of a Cascade R-CNN: three stages of torchvision's RoI heads, one behind the other."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_loss

from msad_cli.models.detectors.base import Detection, Target
from msad_cli.models.detectors.mask_rcnn import of_class
from msad_cli.models.detectors.two_stage import BoxOutputs, BoxPredictor, box_outputs, found_boxes, refined, run_stages

BETA = 1.0
"""Where the smooth L1 loss of box deltas becomes linear."""


class Stage(NamedTuple):
    """What is a stage's own.

    Attributes:
        overlap: IoU with an object from which on a RoI stands for it; below it stands for the background.
        deviations: by which box deltas are divided, those of x, y, width and height.
        weight: of its losses.
    """

    overlap: float
    deviations: tuple[float, float, float, float]
    weight: float


STAGES = (
    Stage(0.5, (0.1, 0.1, 0.2, 0.2), 1.0),
    Stage(0.6, (0.05, 0.05, 0.1, 0.1), 0.5),
    Stage(0.7, (0.033, 0.033, 0.067, 0.067), 0.25),
)


class CascadeHeads(nn.Module):
    """Called as torchvision's `RoIHeads`: each stage looks at the boxes of the one before it.

    Args:
        stages: one for each of `STAGES`, with heads of masks and deltas that are equal for all classes.
    """

    def __init__(self, stages: Sequence[RoIHeads]) -> None:
        super().__init__()
        self.stages: Any = nn.ModuleList(stages)

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
        targets: Sequence[Target] = (),
    ) -> tuple[list[Detection], dict[str, Tensor]]:
        """Detections with masks (D, 1, 28, 28); in training none, but the weighted sums of the stages' losses."""
        if self.training:
            return [], self._losses(features, proposals, sizes, targets)
        rois, outputs = run_stages(list(self.stages), features, proposals, sizes)
        found = found_boxes(self.stages[-1], outputs, rois[-1], sizes)
        masks = self.masks(features, [each["boxes"] for each in found], sizes).sigmoid().mean(dim=1)
        own = of_class(masks, torch.cat([each["labels"] for each in found]))[:, None]
        parts = own.split([len(each["boxes"]) for each in found])
        return [{**each, "masks": part} for each, part in zip(found, parts, strict=True)], {}

    def masks(self, features: dict[str, Tensor], boxes: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Every stage's logits of each class's mask in boxes (R, 4) of each image: (R, 3, classes + 1, 28, 28)."""
        return self.mask_logits(self.stages[0].mask_roi_pool(features, list(boxes), list(sizes)))

    def mask_logits(self, rois: Tensor) -> Tensor:
        """The same of what is read of RoIs, (R, C, 14, 14)."""
        return torch.stack([each.mask_predictor(each.mask_head(rois)) for each in self.stages], dim=1)

    def _losses(
        self,
        features: dict[str, Tensor],
        proposals: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
        targets: Sequence[Target],
    ) -> dict[str, Tensor]:
        found: dict[str, list[Tensor]] = {"loss_classifier": [], "loss_box_reg": [], "loss_mask": []}
        for heads, stage in zip(self.stages, STAGES, strict=True):
            boxes, matched, labels, deltas = heads.select_training_samples(list(proposals), list(targets))
            outputs = box_outputs(heads, features, boxes, sizes)
            parts = box_losses(outputs, torch.cat(labels), torch.cat(deltas))
            objects = [each > 0 for each in labels]
            where = [each[some] for each, some in zip(boxes, objects, strict=True)]
            logits = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(features, where, list(sizes))))
            whose = [each[some] for each, some in zip(matched, objects, strict=True)]
            true = ([each[name] for each in targets] for name in ("masks", "labels"))
            parts["loss_mask"] = maskrcnn_loss(logits, where, *true, whose)
            for name, part in parts.items():
                found[name].append(stage.weight * part)
            # The objects' own boxes are among each stage's anew.
            again = refined(heads, outputs, boxes, sizes)
            triples = zip(again, boxes, targets, strict=True)
            proposals = [new[_no_objects(old, target["boxes"])] for new, old, target in triples]
        return {name: torch.stack(each).sum() for name, each in found.items()}


class OneBoxPredictor(BoxPredictor):
    """Box deltas that are the same for all classes, in the form of those that are not."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(channels, classes)
        self.bbox_pred = nn.Linear(channels, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(R, channels) -> logits (R, classes), deltas (R, 4 · classes)."""
        scores, deltas = super().forward(x)
        return scores, deltas.repeat(1, scores.shape[1])


def box_losses(outputs: BoxOutputs, labels: Tensor, deltas: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of the classes, and smooth L1 of the boxes of objects; both are means over all RoIs.

    Args:
        labels: (R,), 0 for the background.
        deltas: (R, 4), what is to be predicted where there is an object.
    """
    objects = labels > 0
    apart = F.smooth_l1_loss(outputs.deltas[objects, 0], deltas[objects], beta=BETA, reduction="sum")
    return {"loss_classifier": F.cross_entropy(outputs.logits, labels), "loss_box_reg": apart / len(labels)}


def _no_objects(boxes: Tensor, objects: Tensor) -> Tensor:
    """Which of boxes (R, 4) are not, to the last digit, those of objects (M, 4)."""
    return ~(boxes[:, None] == objects).all(dim=2).any(dim=1)
