"""What torchvision's dense detectors, FCOS and RetinaNet, have in common on given features."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from msad_cli.frame import Frame
from msad_cli.models.backbones.normalisation import norm_layer
from msad_cli.models.decode.limits import SCORE_THRESHOLD
from msad_cli.models.decode.nms import DROPPED, best_pairs, suppress, taken, top
from msad_cli.models.detectors.anchors import anchors_by_cell, anchors_of_images, grid_anchors
from msad_cli.models.detectors.base import (
    BACKGROUND,
    Detection,
    DetectorKind,
    Outputs,
    Target,
    Tower,
    finite,
)
from msad_cli.models.detectors.towers import LevelTower, by_anchor, convolutions, entering, level_tower

CANDIDATES = 1000
"""The best pairs of an anchor and a class of an image, which suppression looks at in an exported graph."""


class MatchingHead:
    """A dense head of torchvision's that can be asked which anchors stand for which objects.

    Torchvision finds that in the detector's `compute_loss`, which hands `head_outputs` on to the head unread. So
    without any, the head gives the matches back: of each image (anchors,) int64, the place of an anchor's object, or
    below 0 for none.
    """

    def compute_loss(
        self,
        targets: list[Target],
        head_outputs: dict[str, Tensor] | None,
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> Any:
        """Torchvision's losses, or the matches where there are no outputs."""
        if head_outputs is None:
            return matched_idxs
        return super().compute_loss(targets, head_outputs, anchors, matched_idxs)  # type: ignore[misc]


class DenseKind(DetectorKind):
    """One of torchvision's dense detectors, whose head is a `MatchingHead`."""

    @abstractmethod
    def decoded(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Box deltas (R, 4) at anchors (R, 4) -> boxes (R, 4), corners."""

    @abstractmethod
    def scores(self, outputs: Outputs) -> Tensor:
        """The probability of each class but the background, by which detections are ordered: (N, anchors, K)."""

    @abstractmethod
    def matches(self, targets: Sequence[Target], anchors: list[Tensor], per_level: list[int]) -> list[Tensor]:
        """Which object each anchor stands for: of each image (anchors,) int64, below 0 for none.

        Args:
            anchors: (anchors of all levels, 4) of each image.
            per_level: how many of them each level has.
        """

    @property
    def head(self) -> nn.Module:
        """Both towers and what stands on them."""
        head: nn.Module = self.core.head
        return head

    @property
    def post_processing(self) -> Any:
        """Torchvision's detector itself."""
        return self.core

    def drop_below(self, score: float) -> None:
        """By torchvision's threshold."""
        self.core.score_thresh = max(self.core.score_thresh, score)

    def outputs(self, pyramid: Sequence[Tensor]) -> dict[str, Tensor]:
        """The head's raw outputs."""
        # Under autocast they come in half precision; boxes of a thousand pixels need float32.
        entered = entering(self._tower("classification").conv, pyramid)
        return {name: each.float() for name, each in self.core.head(entered).items()}

    def level_towers(self) -> list[nn.Module]:
        """Both towers with batch statistics of each level and view."""
        spec, norm = self.spec, norm_layer("batch", self.head_views)
        towers = [
            level_tower(spec.channels, spec.head_convs, spec.head_depthwise, len(spec.levels), norm) for _ in range(2)
        ]
        for each in towers:
            self.freeze_unseen(each)
        return [*towers]

    def fold(self) -> None:
        """Each level may have norms of its own behind shared convolutions."""
        for head in (self._tower("classification"), self._tower("regression")):
            if isinstance(head.conv, LevelTower):
                head.conv = head.conv.apart()
        super().fold()

    def losses(
        self, pyramid: Sequence[Tensor], frame: Frame, targets: Sequence[Target], outputs: Outputs | None = None
    ) -> dict[str, Tensor]:
        """`classification`, `bbox_regression`, and FCOS's `bbox_ctrness`."""
        return self._losses([outputs or self.outputs(pyramid)], pyramid, frame, targets)[0]

    def losses_of_views(
        self, pyramids: Sequence[Sequence[Tensor]], frame: Frame, targets: Sequence[Target]
    ) -> list[dict[str, Tensor]]:
        """As `losses` for each; which anchors stand for which objects is found once, as it depends on the frame."""
        return self._losses(self.outputs_of_views(pyramids), pyramids[0], frame, targets)

    def _losses(
        self, outputs: Sequence[Outputs], pyramid: Sequence[Tensor], frame: Frame, targets: Sequence[Target]
    ) -> list[dict[str, Tensor]]:
        anchors, per_level = anchors_of_images(self.core.anchor_generator, pyramid, frame)
        matches = self.matches(targets, anchors, per_level)
        weighted = [self._weighted(each) for each in outputs]
        return [self.core.head.compute_loss(list(targets), each, anchors, matches) for each in weighted]

    def _weighted(self, outputs: Outputs) -> dict[str, Tensor]:
        """Outputs of the same values, in whose logits gradients are multiplied by `class_weights`.

        The focal loss is a sum over classes, each of its own logit: its gradients are then those of a weighted sum.
        What is reported is the plain one, and stays comparable.
        """
        if self.class_weights is None:
            return dict(outputs)
        logits = outputs["cls_logits"]
        return {**outputs, "cls_logits": weighted(logits, self.class_weights.to(logits))}

    def weigh_positives(self, pyramid: Sequence[Tensor], frame: Frame, targets: Sequence[Target]) -> Tensor:
        """The number of anchors that torchvision matches with an object."""
        return torch.cat([self.positive_weights(*pair) for pair in self._positives(pyramid, frame, targets)]).sum()

    def positive_weights(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """What anchors (R, 4) weigh that stand for the objects (R, 4) beside them: (R,), 1 each."""
        return torch.ones_like(boxes[:, 0])

    def _positives(
        self, pyramid: Sequence[Tensor], frame: Frame, targets: Sequence[Target]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each image, anchors (R, 4) and the boxes (R, 4) of the objects that they stand for."""
        anchors, per_level = anchors_of_images(self.core.anchor_generator, pyramid, frame)
        matches = self.matches(targets, anchors, per_level)
        for places, target, objects in zip(anchors, targets, matches, strict=True):
            positive = objects >= 0
            yield places[positive], target["boxes"][objects[positive]]

    def boxes(self, pyramid: Sequence[Tensor], frame: Frame, outputs: Outputs) -> Tensor:
        """The box of each anchor, (N, anchors, 4)."""
        anchors, _ = anchors_of_images(self.core.anchor_generator, pyramid, frame)
        deltas = outputs["bbox_regression"]
        return self.decoded(deltas.flatten(0, 1), torch.cat(anchors)).view_as(deltas)

    def object_anchors(self, pyramid: Sequence[Tensor], frame: Frame) -> list[Tensor]:
        """The detector's own anchors."""
        return anchors_by_cell(self.core.anchor_generator, pyramid, frame)

    def detect(self, pyramid: Sequence[Tensor], frame: Frame, outputs: Outputs | None = None) -> list[Detection]:
        """Torchvision's post-processing; the background takes no place of others."""
        outputs = self._limited(outputs or self.outputs(pyramid))
        anchors, per_level = anchors_of_images(self.core.anchor_generator, pyramid, frame)
        detections: list[Detection] = self.core.postprocess_detections(
            {name: list(each.split(per_level, dim=1)) for name, each in outputs.items()},
            [list(each.split(per_level)) for each in anchors],
            list(frame.image_sizes),
        )
        return [finite(each) for each in detections]

    def decode(
        self, pyramid: Sequence[Tensor], strides: Sequence[tuple[int, int]], size: tuple[int, int]
    ) -> tuple[Tensor, ...]:
        """Boxes, scores and labels: of the best pairs of all levels, where torchvision takes as many of each level."""
        core, outputs = self.core, self.outputs(pyramid)
        scores, places, classes = best_pairs(
            self.scores(outputs), self.limits.candidates or CANDIDATES, self.limits.one_class
        )
        scores = torch.where(scores > core.score_thresh, scores, DROPPED)
        levels = zip(strides, pyramid, strict=True)
        anchors = [grid_anchors(core.anchor_generator, level, *each) for level, each in enumerate(levels)]
        deltas = taken(outputs["bbox_regression"], places)
        boxes = self.decoded(deltas.flatten(0, 1), torch.cat(anchors)[places].flatten(0, 1)).view_as(deltas)
        boxes, most = clip_boxes_to_image(boxes, size), core.detections_per_img
        kept = suppress(boxes, scores, classes, len(self.spec.classes), core.nms_thresh, most)
        scores, rows = top(kept, most)
        return taken(boxes, rows), scores, classes.gather(1, rows) + len(BACKGROUND)

    def _limited(self, outputs: Outputs) -> dict[str, Tensor]:
        """Outputs in which the background, and all but the pairs that may be candidates, have no chance."""
        found = without_background(outputs)
        limits = self.limits
        if limits.candidates is None and not limits.one_class:
            return found
        scores = self.scores(outputs)
        pairs = scores.shape[1] * scores.shape[2]
        _, places, classes = best_pairs(scores, min(limits.candidates or pairs, pairs), limits.one_class)
        kept = torch.zeros_like(scores, dtype=torch.bool).flatten(1)
        kept = kept.scatter(1, places * scores.shape[2] + classes, value=True).view_as(scores)
        logits = found["cls_logits"]
        found["cls_logits"] = logits.masked_fill(~F.pad(kept, (len(BACKGROUND), 0)), -torch.inf)
        return found

    def tower_start(self, tower: Tower, pyramid: Sequence[Tensor], convs: int) -> list[Tensor]:
        """The first convolutions. The cut is before the ReLU, where maps have both signs, as in CrossKD's code."""
        found = []
        for level, each in enumerate(pyramid):
            groups = convolutions(self._tower(tower).conv, level)[:convs]
            layers = [layer for group in groups for layer in group][:-1]
            found.append(nn.Sequential(*layers)(each))
        return found

    def tower_outputs(self, tower: Tower, maps: Sequence[Tensor], convs: int) -> dict[str, Tensor]:
        """`cls_logits` of the classification tower; of the regression tower what `regression_outputs` gives."""
        # A new tensor, as the towers' own ReLUs may write into what they are given.
        entered = [F.relu(each) for each in maps] if convs else maps
        head, features = self._tower(tower), []
        for level, each in enumerate(entered):
            layers = [layer for group in convolutions(head.conv, level)[convs:] for layer in group]
            features.append(nn.Sequential(*layers)(each))
        if tower == "classification":
            return {"cls_logits": by_anchor([head.cls_logits(each) for each in features], head.num_classes)}
        return self.regression_outputs(features)

    @abstractmethod
    def regression_outputs(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """The head's `Outputs` of what its regression tower has made of the levels: (N, channels, h, w) each."""

    def _tower(self, tower: Tower) -> Any:
        return self.core.head.get_submodule(f"{tower}_head")


def weighted(values: Tensor, weights: Tensor | float) -> Tensor:
    """Equal values (…, classes), whose gradients are multiplied by weights, a number or (classes,)."""
    return values.detach() + weights * (values - values.detach())


def dense_options(kind: DetectorKind) -> dict[str, Any]:
    """Arguments that FCOS and RetinaNet share."""
    return {
        "image_mean": list(kind.spec.mean),
        "image_std": list(kind.spec.std),
        "score_thresh": SCORE_THRESHOLD,
        "detections_per_img": kind.spec.detections_per_image,
    }


def without_background(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs whose background has no chance, in new tensors."""
    logits = outputs["cls_logits"]
    labels = torch.tensor(BACKGROUND, device=logits.device)
    return {**outputs, "cls_logits": logits.index_fill(-1, labels, -torch.inf)}
