"""Dense detectors that predict distances from cells: what RTMDet and RepPoints have in common.

A cell (i, j) of stride s stands at (s·j, s·i) in the frame, without half a cell's offset.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from msad_cli.frame import Frame
from msad_cli.models.decode.limits import SCORE_THRESHOLD
from msad_cli.models.decode.nms import DROPPED, best_pairs, suppress, taken, top
from msad_cli.models.detectors.anchors import anchors_by_cell, octave_anchors
from msad_cli.models.detectors.base import Detection, DetectorKind, Outputs, finite
from msad_cli.models.pyramid import AlignedBackbone

CANDIDATES = 1000
"""The best pairs of a cell and a class, of each of the sets that `competing` names, which suppression looks at."""


class CellsDetector(nn.Module):
    """The network. Its names in a model file: `core.backbone…`, `core.head…`.

    Attributes:
        nms_thresh: IoU above which the lower score of a class goes.
        score_thresh: detections scored lower are dropped.
        detections_per_img: how many detections an image has at most.
    """

    def __init__(self, backbone: AlignedBackbone, head: nn.Module, overlap: float, detections: int) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.nms_thresh, self.score_thresh, self.detections_per_img = overlap, SCORE_THRESHOLD, detections


class CellsKind(DetectorKind):
    """A detector whose head gives `cls_logits` (N, cells, classes), without the background, and `bbox_regression`
    (N, cells, 4), the distances to the left, top, right and bottom in strides."""

    @abstractmethod
    def competing(self, pyramid: Sequence[Tensor]) -> list[int]:
        """How many cells, in order, compete with each other for the places of candidates, unless there is a limit on
        all of them."""

    @property
    def strides(self) -> list[int]:
        """Pixels of the frame a cell of each level. Grids may end with a part of a cell."""
        return [2**level for level in self.spec.levels]

    @property
    def head(self) -> nn.Module:
        """Both towers and what stands on them."""
        head: nn.Module = self.core.head
        return head

    @property
    def post_processing(self) -> CellsDetector:
        """The core itself."""
        core: CellsDetector = self.core
        return core

    def outputs(self, pyramid: Sequence[Tensor]) -> dict[str, Tensor]:
        """The head's raw outputs."""
        found: dict[str, Tensor] = self.core.head(list(pyramid))
        return found

    def detect(self, pyramid: Sequence[Tensor], frame: Frame, outputs: Outputs | None = None) -> list[Detection]:
        """The best pairs of cell and class, decoded, clipped and suppressed."""
        boxes, scores, labels = self._candidates(pyramid, outputs or self.outputs(pyramid))
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
        boxes, scores, labels = self._candidates(pyramid, self.outputs(pyramid))
        return self._suppressed(clip_boxes_to_image(boxes, size), scores, labels)

    def _candidates(self, pyramid: Sequence[Tensor], outputs: Outputs) -> tuple[Tensor, Tensor, Tensor]:
        """The best boxes (N, B, 4), not clipped, scores (N, B), `DROPPED` below the threshold, and labels (N, B)."""
        scores, most = outputs["cls_logits"].sigmoid(), self.limits.candidates
        sets = self.competing(pyramid) if most is None else [scores.shape[1]]
        boxes = boxes_of(*cells_of(pyramid, self.strides), outputs["bbox_regression"]).split(sets, dim=1)
        found = []
        for own, each in zip(boxes, scores.split(sets, dim=1), strict=True):
            best, places, classes = best_pairs(each, most or CANDIDATES, self.limits.one_class)
            found.append((taken(own, places), best, classes + 1))
        whole, best, labels = (torch.cat(each, dim=1) for each in zip(*found, strict=True))
        return whole, torch.where(best > self.core.score_thresh, best, DROPPED), labels

    def _suppressed(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        core = self.core
        most = core.detections_per_img
        scores, places = top(suppress(boxes, scores, labels - 1, len(self.spec.classes), core.nms_thresh, most), most)
        return taken(boxes, places), scores, labels.gather(1, places)

    def boxes(self, pyramid: Sequence[Tensor], frame: Frame, outputs: Outputs) -> Tensor:
        """The box of each cell, (N, cells, 4)."""
        return boxes_of(*cells_of(pyramid, self.strides), outputs["bbox_regression"])

    def object_anchors(self, pyramid: Sequence[Tensor], frame: Frame) -> list[Tensor]:
        """RetinaNet's nine a cell, of as many levels as there are."""
        return anchors_by_cell(octave_anchors(self.spec), pyramid, frame)


def cells_of(pyramid: Sequence[Tensor], strides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Where the cells of all levels stand, (A, 2), x and y in pixels of the frame; and (A,) their strides."""
    points, sides = [], []
    for grid, stride in zip(pyramid, strides, strict=True):
        y, x = (stride * torch.arange(side, device=grid.device, dtype=torch.float32) for side in grid.shape[2:])
        level = torch.stack([each.flatten() for each in torch.meshgrid(x, y, indexing="xy")], dim=1)
        points.append(level)
        sides.append(torch.full_like(level[:, 0], stride))
    return torch.cat(points), torch.cat(sides)


def boxes_of(points: Tensor, strides: Tensor, distances: Tensor) -> Tensor:
    """Boxes (N, A, 4), corners, of distances (N, A, 4) in strides to the left, top, right and bottom."""
    pixels = distances * strides[:, None]
    return torch.cat([points - pixels[..., :2], points + pixels[..., 2:]], dim=2)
