"""What two-stage detectors have in common on given features: torchvision's proposals, then boxes of RoIs.

`rpn` and `roi_heads` read of the image list only what dense detectors read, the padded shape and the image sizes; so
the HR frame is handed to them, whichever view the features come from.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import clip_boxes_to_image

from msad_cli.errors import UsageError
from msad_cli.frame import Frame
from msad_cli.models.decode.limits import SCORE_THRESHOLD, Limits
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
from msad_cli.models.detectors.rois import decode_boxes, decode_proposals, hr_roi_align
from msad_cli.models.spec import DetectorSpec

BOX_CELLS = 7
"""Side of the grids that RoIAlign samples for boxes."""
PROPOSALS = 1000
"""Proposals an image that the box head is counted for: as many as torchvision keeps at most."""

TWO_STAGE_NAMES = FPN_NAMES | {r"(rpn\.head\.conv)\.(weight|bias)": r"\1.0.0.\2"}
"""See `PublishedWeights`."""
BOX_ROWS = {"roi_heads.box_predictor.cls_score": 1, "roi_heads.box_predictor.bbox_pred": 1}
"""See `HeadRows`."""


class ProposalOutputs(NamedTuple):
    """Of the A anchors of all levels: logits (N, A) and box deltas (N, A, 4), float32."""

    logits: Tensor
    deltas: Tensor


class BoxOutputs(NamedTuple):
    """Of R proposals: logits of classes (R, C + 1), the background's first, and box deltas (R, C + 1, 4), float32."""

    logits: Tensor
    deltas: Tensor


class TwoStageKind(DetectorKind):
    """A detector of two stages: proposals from all five levels, RoIs read from the first four."""

    @property
    def head(self) -> nn.Module:
        """The proposals'; that of the RoIs is called with what is read of them."""
        head: nn.Module = self.core.rpn.head
        return head

    @property
    def stages(self) -> Sequence[RoIHeads]:
        """What classifies RoIs and decodes their boxes, each looking at the boxes of the one before it."""
        return (self.core.roi_heads,)

    def losses(
        self, pyramid: Sequence[Tensor], frame: Frame, targets: Sequence[Target], outputs: Outputs | None = None
    ) -> dict[str, Tensor]:
        """Those of proposals and of RoIs. Which anchors and proposals meet the targets is drawn at random."""
        features = named(pyramid)
        with self._in_training(True):
            proposals, losses = self.core.rpn(image_list(frame), features, list(targets))
            _, more = self.core.roi_heads(features, proposals, list(frame.image_sizes), list(targets))
        return {**more, **losses}

    def proposals(self, pyramid: Sequence[Tensor], frame: Frame) -> list[Tensor]:
        """Boxes (P, 4) of each image in pixels of the frame that may hold something, the most likely first."""
        with self._in_training(False):
            proposals: list[Tensor] = self.core.rpn(image_list(frame), named(pyramid))[0]
        return proposals

    def detect(self, pyramid: Sequence[Tensor], frame: Frame, outputs: Outputs | None = None) -> list[Detection]:
        """Both stages, as torchvision computes them."""
        proposals = self.proposals(pyramid, frame)
        with self._in_training(False):
            detections, _ = self.core.roi_heads(named(pyramid), proposals, list(frame.image_sizes))
        return [finite(each) for each in detections]

    def decode(
        self, pyramid: Sequence[Tensor], strides: Sequence[tuple[int, int]], size: tuple[int, int]
    ) -> tuple[Tensor, ...]:
        """Both stages without loops over images."""
        proposals, found = decode_proposals(self.core.rpn, pyramid, strides, size)
        return decode_boxes(self.stages, pyramid, proposals, found, size)

    @property
    def post_processing(self) -> Any:
        """What decodes the boxes that are found."""
        return self.stages[-1]

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

    def object_anchors(self, pyramid: Sequence[Tensor], frame: Frame) -> list[Tensor]:
        """The proposal network's own anchors."""
        return anchors_by_cell(self.core.rpn.anchor_generator, pyramid, frame)

    def parts(self) -> dict[str, Part]:
        """`rpn`, and `roi` for 1000 proposals."""
        return {
            "rpn": Part((self.core.rpn,), self.head),
            "roi": Part((self.core.roi_heads,), self.run_rois, of_area=False),
        }

    def run_rois(self, pyramid: Sequence[Tensor]) -> None:
        """What is multiplied for RoIs, once."""
        proposals = pyramid[0].new_empty(PROPOSALS, self.spec.channels, BOX_CELLS, BOX_CELLS)
        for heads in self.stages:
            heads.box_predictor(heads.box_head(proposals))

    # What distillation asks a student: its predictions where the teacher looks, not at its own proposals.

    def proposal_outputs(self, pyramid: Sequence[Tensor]) -> ProposalOutputs:
        """The first stage's predictions on a pyramid."""
        logits, deltas = self.core.rpn.head([each.float() for each in pyramid])
        return ProposalOutputs(
            torch.cat([each.flatten(1) for each in logits], dim=1).float(),
            torch.cat([each.unflatten(1, (-1, 4)).movedim(2, -1).flatten(1, 3) for each in deltas], dim=1).float(),
        )

    def box_outputs(
        self, pyramid: Sequence[Tensor], frame: Frame, rois: Sequence[Sequence[Tensor]]
    ) -> list[BoxOutputs]:
        """What each stage predicts of RoIs, of each stage (R, 4) of each image, that may be another detector's."""
        features, sizes = named(pyramid), frame.image_sizes
        return [box_outputs(heads, features, boxes, sizes) for heads, boxes in zip(self.stages, rois, strict=True)]

    def run_stages(
        self, pyramid: Sequence[Tensor], frame: Frame, proposals: Sequence[Tensor]
    ) -> tuple[list[Sequence[Tensor]], list[BoxOutputs]]:
        """The RoIs that each stage looks at, the first at the proposals (P, 4) of each image, and its predictions."""
        return run_stages(self.stages, named(pyramid), proposals, frame.image_sizes)

    @torch.no_grad()
    def found_objects(
        self, outputs: Sequence[BoxOutputs], rois: Sequence[Sequence[Tensor]], frame: Frame, most: int
    ) -> list[Detection]:
        """What is found by the predictions of all stages: boxes in pixels of the frame, scores and labels of each
        image's best, at most so many."""
        found = found_boxes(self.stages[-1], outputs, rois[-1], frame.image_sizes)
        return [{name: each[:most] for name, each in finite(one).items()} for one in found]

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


def box_outputs(
    heads: RoIHeads, features: dict[str, Tensor], rois: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
) -> BoxOutputs:
    """What a stage predicts of RoIs, (R, 4) of each image; `features` are a pyramid's, see `named`."""
    logits, deltas = heads.box_predictor(heads.box_head(heads.box_roi_pool(features, list(rois), list(sizes))))
    return BoxOutputs(logits.float(), deltas.float().unflatten(1, (-1, 4)))


def run_stages(
    stages: Sequence[RoIHeads],
    features: dict[str, Tensor],
    proposals: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
) -> tuple[list[Sequence[Tensor]], list[BoxOutputs]]:
    """Each stage's RoIs, (R, 4) of each image, and what it predicts of them."""
    rois, outputs = [proposals], [box_outputs(stages[0], features, proposals, sizes)]
    for before, heads in pairwise(stages):
        rois.append(refined(before, outputs[-1], rois[-1], sizes))
        outputs.append(box_outputs(heads, features, rois[-1], sizes))
    return rois, outputs


@torch.no_grad()
def refined(
    heads: RoIHeads, outputs: BoxOutputs, rois: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
) -> list[Tensor]:
    """RoIs (R, 4) of each image as a stage of equal deltas for all classes corrects them, clipped to the image."""
    decoded = heads.box_coder.decode_single(outputs.deltas[:, 0], torch.cat(list(rois)))
    parts = decoded.split([len(each) for each in rois])
    return [clip_boxes_to_image(each, size) for each, size in zip(parts, sizes, strict=True)]


def found_boxes(
    heads: RoIHeads, outputs: Sequence[BoxOutputs], rois: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
) -> list[Detection]:
    """Boxes, scores and labels of each image, by the mean of the stages' class scores and the last one's boxes.

    Args:
        heads: the last stage, at whose RoIs `rois` its outputs are.
    """
    shares = torch.stack([each.logits.softmax(dim=1) for each in outputs]).mean(dim=0)
    # Torchvision's softmax makes the shares of their logarithms again.
    found = heads.postprocess_detections(shares.log(), outputs[-1].deltas.flatten(1), list(rois), list(sizes))
    return [dict(zip(("boxes", "scores", "labels"), row, strict=True)) for row in zip(*found, strict=True)]


def two_stage_options(kind: DetectorKind, classes: int) -> dict[str, Any]:
    """Arguments that torchvision's R-CNNs share."""
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
        "box_predictor": BoxPredictor(hidden, classes),
        "box_batch_size_per_image": spec.learning.rois,
        "box_score_thresh": SCORE_THRESHOLD,
        "box_detections_per_img": spec.detections_per_image,
    }


def named(pyramid: Sequence[Tensor]) -> dict[str, Tensor]:
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


class BoxPredictor(FastRCNNPredictor):  # type: ignore[misc]
    """Torchvision's: logits (R, C + 1) and deltas of each class's box (R, 4 · (C + 1))."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, deltas = super().forward(x)
        return scores.float(), deltas.float()
