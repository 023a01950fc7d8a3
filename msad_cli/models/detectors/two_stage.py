"""What torchvision's two-stage detectors, Mask R-CNN and Keypoint R-CNN, have in common on given features.

`rpn` and `roi_heads` read of the image list only what dense detectors read, the padded shape and the image sizes; so
the HR frame is handed to them, whichever view the features come from.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead

from msad_cli.errors import UsageError
from msad_cli.frame import Frame
from msad_cli.models.decode.limits import SCORE_THRESHOLD, Limits
from msad_cli.models.decode.nms import DROPPED
from msad_cli.models.detectors.anchors import RATIOS, anchors_by_cell, anchors_of, image_list
from msad_cli.models.detectors.base import (
    FPN_NAMES,
    Detection,
    DetectorKind,
    Outputs,
    Part,
    Target,
    finite,
)
from msad_cli.models.detectors.rois import decode_boxes, decode_proposals, hr_roi_align, put_back, read, rois_of
from msad_cli.models.spec import DetectorSpec

BOX_CELLS, OBJECT_CELLS = 7, 14
"""Sides of the grids that RoIAlign samples for boxes, and for masks or keypoints."""
PROPOSALS = 1000
"""Proposals an image that the box head is counted for: as many as torchvision keeps at most."""

TWO_STAGE_NAMES = FPN_NAMES | {r"(rpn\.head\.conv)\.(weight|bias)": r"\1.0.0.\2"}
BOX_ROWS = {"roi_heads.box_predictor.cls_score": 1, "roi_heads.box_predictor.bbox_pred": 1}
"""See `PublishedWeights`."""


class ProposalOutputs(NamedTuple):
    """Of the A anchors of all levels: logits (N, A) and box deltas (N, A, 4), float32."""

    logits: Tensor
    deltas: Tensor


class BoxOutputs(NamedTuple):
    """Of R proposals: logits of classes (R, C + 1), the background's first, and box deltas (R, C + 1, 4), float32."""

    logits: Tensor
    deltas: Tensor


class TwoStageKind(DetectorKind):
    """One of torchvision's two-stage detectors: proposals from all five levels, RoIs read from the first four."""

    @property
    def head(self) -> nn.Module:
        """The proposals'; that of the RoIs is called with what is read of them."""
        head: nn.Module = self.core.rpn.head
        return head

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

    def losses(
        self, pyramid: Sequence[Tensor], frame: Frame, targets: Sequence[Target], outputs: Outputs | None = None
    ) -> dict[str, Tensor]:
        """Those of proposals and of RoIs. Which anchors and proposals meet the targets is drawn at random."""
        features = _named(pyramid)
        with self._in_training(True):
            proposals, losses = self.core.rpn(image_list(frame), features, list(targets))
            _, more = self.core.roi_heads(features, proposals, list(frame.image_sizes), list(targets))
        return {**more, **losses}

    def proposals(self, pyramid: Sequence[Tensor], frame: Frame) -> list[Tensor]:
        """Boxes (P, 4) of each image in pixels of the frame that may hold something, the most likely first."""
        with self._in_training(False):
            proposals: list[Tensor] = self.core.rpn(image_list(frame), _named(pyramid))[0]
        return proposals

    def detect(self, pyramid: Sequence[Tensor], frame: Frame, outputs: Outputs | None = None) -> list[Detection]:
        """Both stages, as torchvision computes them."""
        proposals = self.proposals(pyramid, frame)
        with self._in_training(False):
            detections, _ = self.core.roi_heads(_named(pyramid), proposals, list(frame.image_sizes))
        return [finite(each) for each in detections]

    def decode(
        self, pyramid: Sequence[Tensor], strides: Sequence[tuple[int, int]], size: tuple[int, int]
    ) -> tuple[Tensor, ...]:
        """Both stages without loops over images."""
        proposals, found = decode_proposals(self.core.rpn, pyramid, strides, size)
        boxes, scores, labels = decode_boxes(self.core.roi_heads, pyramid, proposals, found, size)
        rows, rois = rois_of(boxes, scores > DROPPED)
        logits = self.object_outputs(read(self.object_pool, pyramid, rois))
        objects = self.decode_objects(logits, rois[:, 1:], labels.flatten()[rows])
        return (boxes, scores, labels, *(put_back(each, rows, boxes) for each in objects))

    @property
    def post_processing(self) -> Any:
        """The second stage, torchvision's."""
        return self.core.roi_heads

    def limit(self, spec: DetectorSpec, nms_iou: float | None, limits: Limits) -> None:
        """As every detector's. An object's best class alone is left behind suppression, not before it.

        Raises:
            UsageError: candidates are limited, of which there is no one number: proposals have their own.
        """
        if limits.candidates is not None:
            raise UsageError(
                f"--candidates: {spec.detector} finds proposals first",
                "leave it out; --lowest-score and --max-detections limit what is found",
                code="candidates-of-proposals",
            )
        super().limit(spec, nms_iou, limits)

    def drop_below(self, score: float) -> None:
        """By the second stage's threshold: masks and keypoints are computed of what passes it alone."""
        heads = self.core.roi_heads
        heads.score_thresh = max(heads.score_thresh, score)

    def object_anchors(self, pyramid: Sequence[Tensor], frame: Frame) -> list[Tensor]:
        """The proposal network's own anchors."""
        return anchors_by_cell(self.core.rpn.anchor_generator, pyramid, frame)

    def parts(self) -> dict[str, Part]:
        """`rpn`, and `roi` for 1000 proposals and as many masks or sets of keypoints as are detected at most."""
        heads = self.core.roi_heads

        def run_rois(pyramid: Sequence[Tensor]) -> None:
            channels = self.spec.channels
            proposals = pyramid[0].new_empty(PROPOSALS, channels, BOX_CELLS, BOX_CELLS)
            heads.box_predictor(heads.box_head(proposals))
            count = self.spec.detections_per_image
            self.object_outputs(pyramid[0].new_empty(count, channels, OBJECT_CELLS, OBJECT_CELLS))

        return {
            "rpn": Part((self.core.rpn,), self.head),
            "roi": Part((heads,), run_rois, of_area=False),
        }

    # What distillation asks a student: its predictions where the teacher looks, not at its own proposals.

    def proposal_outputs(self, pyramid: Sequence[Tensor]) -> ProposalOutputs:
        """The first stage's predictions on a pyramid."""
        logits, deltas = self.core.rpn.head([each.float() for each in pyramid])
        return ProposalOutputs(
            torch.cat([each.flatten(1) for each in logits], dim=1).float(),
            torch.cat([each.unflatten(1, (-1, 4)).movedim(2, -1).flatten(1, 3) for each in deltas], dim=1).float(),
        )

    def box_outputs(self, pyramid: Sequence[Tensor], frame: Frame, proposals: Sequence[Tensor]) -> BoxOutputs:
        """The second stage's predictions at proposals, (P, 4) of each image, that may be another detector's."""
        heads = self.core.roi_heads
        pooled = heads.box_roi_pool(_named(pyramid), list(proposals), list(frame.image_sizes))
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        return BoxOutputs(logits.float(), deltas.float().unflatten(1, (-1, 4)))

    @torch.no_grad()
    def found_objects(
        self, outputs: BoxOutputs, proposals: Sequence[Tensor], frame: Frame, most: int
    ) -> list[Detection]:
        """What is found by these predictions: boxes in pixels of the frame, scores and labels of each image's best, at
        most so many."""
        found = self.core.roi_heads.postprocess_detections(
            outputs.logits, outputs.deltas.flatten(1), list(proposals), list(frame.image_sizes)
        )
        rows = (dict(zip(("boxes", "scores", "labels"), row, strict=True)) for row in zip(*found, strict=True))
        return [{name: each[:most] for name, each in finite(row).items()} for row in rows]

    def outputs_at(self, pyramid: Sequence[Tensor], frame: Frame, found: Sequence[Detection]) -> Tensor:
        """Logits of the masks (D, 28, 28), each of its object's class, or of the keypoints' places (D, K, 56, 56) in
        the boxes of objects that may be another detector's; float32."""
        pooled = self.object_pool(_named(pyramid), [each["boxes"] for each in found], list(frame.image_sizes))
        labels = torch.cat([each["labels"] for each in found])
        return self.object_logits(self.object_outputs(pooled), labels).float()

    @contextmanager
    def _in_training(self, training: bool) -> Iterator[None]:
        """Both stages give losses or detections by their mode, which is not for a frozen model's caller to know."""
        stages = (self.core.rpn, self.core.roi_heads)
        before = [stage.training for stage in stages]
        try:
            for stage in stages:
                stage.training = training
            yield
        finally:
            for stage, mode in zip(stages, before, strict=True):
                stage.training = mode


def two_stage_options(kind: DetectorKind, classes: int) -> dict[str, Any]:
    """Arguments that Mask R-CNN and Keypoint R-CNN share."""
    spec = kind.spec
    anchors = anchors_of(spec, ((32,), (64,), (128,), (256,), (512,)), RATIOS)
    hidden = 4 * spec.channels
    return {
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
        "rpn_anchor_generator": anchors,
        "rpn_head": _ProposalHead(spec.channels, anchors.num_anchors_per_location()[0]),
        "box_roi_pool": hr_roi_align(BOX_CELLS),
        "box_head": TwoMLPHead(spec.channels * BOX_CELLS**2, hidden),
        "box_predictor": _BoxPredictor(hidden, classes),
        "box_batch_size_per_image": spec.learning.rois,
        "box_score_thresh": SCORE_THRESHOLD,
        "box_detections_per_img": spec.detections_per_image,
    }


def _named(pyramid: Sequence[Tensor]) -> dict[str, Tensor]:
    """The maps under the names that torchvision knows them by, as float32."""
    # Anchors, proposals and RoIs get the maps' type, and boxes of a thousand pixels need float32. Under autocast the
    # heads' convolutions go back to half precision by themselves.
    return {str(i): each.float() for i, each in enumerate(pyramid)}


# Under autocast a head's outputs come in half precision; boxes of a thousand pixels and their losses need float32.
# Dense heads are called by our own code, which sees to that; those of two stages are called by torchvision's.


class _ProposalHead(RPNHead):  # type: ignore[misc]
    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        objectness, deltas = super().forward(x)
        return [each.float() for each in objectness], [each.float() for each in deltas]


class _BoxPredictor(FastRCNNPredictor):  # type: ignore[misc]
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, deltas = super().forward(x)
        return scores.float(), deltas.float()
