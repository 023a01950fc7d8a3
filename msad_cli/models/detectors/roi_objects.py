"""Two-stage detectors that predict something beside boxes, masks or keypoints, in the boxes that they have found."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from msad_cli.frame import Frame
from msad_cli.models.decode.nms import DROPPED
from msad_cli.models.detectors.base import Detection
from msad_cli.models.detectors.rois import put_back, read, rois_of
from msad_cli.models.detectors.two_stage import TwoStageKind, named

OBJECT_CELLS = 14
"""Side of the grids that RoIAlign samples for masks or keypoints."""


class RoIObjectsKind(TwoStageKind):
    """A detector of two stages with a branch for what its task has beside boxes."""

    @property
    @abstractmethod
    def object_pool(self) -> nn.Module:
        """What reads the RoIs of masks or keypoints."""

    @abstractmethod
    def object_outputs(self, rois: Tensor) -> Tensor:
        """What is predicted of RoIs (R, C, 14, 14) beside boxes: logits (R, …, h, w)."""

    @abstractmethod
    def decode_objects(self, logits: Tensor, boxes: Tensor, labels: Tensor) -> list[Tensor]:
        """What `decode` gives beside boxes, from `object_outputs`, boxes (R, 4) in HR pixels and labels (R,)."""

    @abstractmethod
    def object_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of `object_outputs` what stands for objects (R,) of these labels: (R, h, w) or (R, K, h, w)."""

    def decode(
        self, pyramid: Sequence[Tensor], strides: Sequence[tuple[int, int]], size: tuple[int, int]
    ) -> tuple[Tensor, ...]:
        """Boxes, scores and labels, and what is predicted in the boxes."""
        boxes, scores, labels = super().decode(pyramid, strides, size)
        rows, rois = rois_of(boxes, scores > DROPPED)
        logits = self.object_outputs(read(self.object_pool, pyramid, rois))
        objects = self.decode_objects(logits, rois[:, 1:], labels.flatten()[rows])
        return (boxes, scores, labels, *(put_back(each, rows, boxes) for each in objects))

    def run_rois(self, pyramid: Sequence[Tensor]) -> None:
        """For masks or sets of keypoints too, as many as are detected at most."""
        super().run_rois(pyramid)
        count = self.spec.detections_per_image
        self.object_outputs(pyramid[0].new_empty(count, self.spec.channels, OBJECT_CELLS, OBJECT_CELLS))

    def outputs_at(self, pyramid: Sequence[Tensor], frame: Frame, found: Sequence[Detection]) -> Tensor:
        """Logits of the masks (D, 28, 28), each of its object's class, or of the keypoints' places (D, K, 56, 56) in
        the boxes of objects that may be another detector's; float32."""
        pooled = self.object_pool(named(pyramid), [each["boxes"] for each in found], list(frame.image_sizes))
        labels = torch.cat([each["labels"] for each in found])
        return self.object_logits(self.object_outputs(pooled), labels).float()
