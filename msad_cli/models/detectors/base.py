"""What a detector must answer. Each has a file with a class that does, and a line in `kinds.py`.

After the backbone, torchvision reads its image list only for the padded shape (strides) and the image sizes. Handed the
HR frame, its own heads, losses and post-processing place anchors, targets and clipping there, whichever view the
features come from. So a kind runs torchvision's detector on given features instead of on images.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from msad_cli.errors import UsageError
from msad_cli.frame import Frame
from msad_cli.models.backbones.folding import fold
from msad_cli.models.backbones.normalisation import FUSED, freeze_view, select_view
from msad_cli.models.backbones.resnet import Backbone
from msad_cli.models.decode.limits import OWN, Limits
from msad_cli.models.detectors.kinds import DETECTORS
from msad_cli.models.pyramid import AlignedBackbone, FPNBackbone
from msad_cli.models.spec import DetectorSpec

Target = dict[str, Tensor]
"""`boxes` (M, 4) float, corners in HR pixels; `labels` (M,) int64, from 1; as the task has it, `masks` (M, h, w) uint8
of the HR image's size, or `keypoints` (M, K, 3) float, x and y in HR pixels and visibility 0, 1, 2."""
Detection = dict[str, Tensor]
"""`boxes` (D, 4) float, corners in HR pixels; `scores` (D,), descending; `labels` (D,) int64, from 1; as the task has
it, `masks` (D, 1, 28, 28), probabilities on a grid over each box, or `keypoints` (D, K, 3), x and y in HR pixels and 1,
with `keypoints_scores` (D, K), logits."""
Outputs = Mapping[str, Tensor]
"""A dense head's raw outputs by name, (N, anchors of all levels, …) float32: `cls_logits` (…, classes), and as the head
has them `bbox_regression` (…, 4) and `bbox_ctrness` (…, 1)."""
Tower = Literal["classification", "regression"]
FPN_NAMES = {r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)": r"\1.0.\2"}
"""What published files call the pyramid's tensors, see `PublishedWeights`."""

BACKGROUND = (0,)
"""The label that no object has, as in torchvision's own weights; an untrained head predicts it all the same."""


@dataclass(frozen=True)
class Part:
    """A part of a detector behind the pyramid whose cost is counted by itself.

    Attributes:
        modules: whose parameters are counted.
        run: computes it once, given the maps of one image on the meta device.
        of_area: whether its cost grows with the image's area; else it is counted whole for any image.
    """

    modules: tuple[nn.Module, ...]
    run: Callable[[list[Tensor]], object]
    of_area: bool = True


@dataclass(frozen=True, kw_only=True)
class HeadRows:
    """The layers of a head whose rows stand for classes or keypoints.

    Attributes:
        classes: layers with rows for each class, and how often the classes are repeated in them.
        keypoints: the layer with outputs for each keypoint, or empty.
        background: whether a row of the background comes before those of the classes.
    """

    classes: Mapping[str, int] = field(default_factory=dict)
    keypoints: str = ""
    background: bool = True


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """COCO weights of a detector: torchvision's, with a ResNet-50 of 256 channels and 4 convolutions, or OpenMMLab's.

    Attributes:
        name: of torchvision's builder; of OpenMMLab's weights, of one whose description has COCO's classes.
        old_names: patterns of names in the published file, and what torchvision calls these tensors now.
        without_epsilon: they were trained, and are run by torchvision, with nothing added to variances.
        urls: by backbone, where OpenMMLab has them; empty for torchvision's.
    """

    name: str
    old_names: Mapping[str, str] = field(default_factory=dict)
    without_epsilon: bool = False
    urls: Mapping[str, str] = field(default_factory=dict)


class DetectorKind(ABC):
    """A detector behind its pyramid.

    Pyramids are maps (N, C, h, w), finest first, as many as the spec has levels. Boxes live in the frame that is given
    with them, which is HR unless a detector is not aligned.

    Args:
        spec: what is built.
        backbone: with its pyramid; the core has it under the name `backbone`.

    Attributes:
        core: the network, with the names that published weights have.
        class_weights: by which a dense detector's classification loss of each class is weighted in training, a number
            for each label, the background first; None for all alike.
        limits: of its post-processing.
        deployed: those that an exported graph has unless others are typed; measured (docs/export.md).
    """

    rows: ClassVar[HeadRows] = HeadRows()
    published: ClassVar[PublishedWeights | None] = None
    deployed: ClassVar[Limits] = OWN
    class_weights: Tensor | None = None
    limits = OWN

    def __init__(self, spec: DetectorSpec, backbone: AlignedBackbone) -> None:
        self.spec = spec
        self.core: Any = self.build(backbone, len(spec.classes) + len(BACKGROUND))

    @classmethod
    def above(cls, spec: DetectorSpec, backbone: Backbone, ks: Sequence[int]) -> AlignedBackbone:
        """A backbone with the pyramid that this detector reads.

        Args:
            ks: the reductions of the views that the pyramid has to serve.
        """
        return FPNBackbone(backbone, spec.channels, spec.finest_level, ks)

    @abstractmethod
    def build(self, backbone: AlignedBackbone, classes: int) -> nn.Module:
        """The core, from `self.spec`; `classes` counts the background too."""

    @property
    @abstractmethod
    def head(self) -> nn.Module:
        """What is called with the whole pyramid: torch.compile takes it."""

    @abstractmethod
    def losses(
        self, pyramid: Sequence[Tensor], frame: Frame, targets: Sequence[Target], outputs: Outputs | None = None
    ) -> dict[str, Tensor]:
        """Named losses of N images, numbers () each; they are those of torchvision's own forward with these features.

        Args:
            frame: in which the boxes, masks and keypoints of the N targets live.
            outputs: what `outputs` gave for this pyramid, if it was called already.
        """

    @abstractmethod
    def detect(self, pyramid: Sequence[Tensor], frame: Frame, outputs: Outputs | None = None) -> list[Detection]:
        """Detections, one dict an image, in pixels of the frame and clipped to the image; never the background.

        Args:
            outputs: what `outputs` gave for this pyramid, if it was called already.
        """

    @abstractmethod
    def decode(
        self, pyramid: Sequence[Tensor], strides: Sequence[tuple[int, int]], size: tuple[int, int]
    ) -> tuple[Tensor, ...]:
        """`detect` in tensors of fixed shapes and without loops over images: what an exported graph holds.

        Args:
            pyramid: maps (N, C, h, w), finest first, `strides` HR pixels a cell, down and across.
            size: of the images, (height, width) in HR pixels.

        Returns:
            Boxes (N, D, 4) in HR pixels, clipped; scores (N, D), descending, `decode.nms.DROPPED` where there are no
            more; labels (N, D) from 1; and by task masks (N, D, 28, 28), probabilities on a grid over each box, or
            keypoints (N, D, K, 3), x and y in HR pixels and 1, with their logits (N, D, K).
        """

    def outputs(self, pyramid: Sequence[Tensor]) -> dict[str, Tensor]:
        """The head's raw outputs on a pyramid, `Outputs`; empty for a detector that has none before its proposals."""
        return {}

    def losses_of_views(
        self, pyramids: Sequence[Sequence[Tensor]], frame: Frame, targets: Sequence[Target]
    ) -> list[dict[str, Tensor]]:
        """What `losses` gives for each of several pyramids of one frame."""
        return [self.losses(each, frame, targets) for each in pyramids]

    def parts(self) -> dict[str, Part]:
        """By name, in the order in which they are computed, what costs something behind the pyramid."""
        return {"head": Part((self.head,), self.outputs)}

    @property
    def head_views(self) -> tuple[int, ...]:
        """The views of which a head with batch statistics has its own, and their fusion."""
        spec = self.spec
        return (*spec.ks, *([FUSED] if spec.fuses else [])) if spec.scales == "aligned" else (1,)

    def freeze_unseen(self, head: nn.Module) -> None:
        """Has norms of a part of the head learn nothing that it is never shown: a fusion student learns from its fused
        maps alone.
        """
        if self.spec.role == "student" and self.spec.fuses:
            for k in self.spec.ks:
                freeze_view(head, k)

    def outputs_of_views(self, pyramids: Sequence[Sequence[Tensor]]) -> list[dict[str, Tensor]]:
        """What `outputs` gives for each of several pyramids: of the views, k ascending, and perhaps the fused one."""
        found = []
        for view, pyramid in zip((*self.spec.ks, FUSED), pyramids, strict=False):
            select_view(self.head, view)
            found.append(self.outputs(pyramid))
        return found

    @property
    def post_processing(self) -> Any:
        """Torchvision's module that has `nms_thresh`, an IoU, `score_thresh`, and `detections_per_img`.

        Raises:
            UsageError: the detector suppresses in its own way.
        """
        raise UsageError(
            f"{self.spec.detector}: its non-maximum suppression cannot be set",
            "leave out --nms-iou and --max-detections",
            code="suppression-fixed",
        )

    def limit(self, spec: DetectorSpec, nms_iou: float | None, limits: Limits) -> None:
        """Takes `detections_per_image` of another spec, an IoU above which the lower score of a class goes, and limits.

        Raises:
            UsageError: the detector suppresses in its own way, or has nothing that they limit.
        """
        network, self.spec, self.limits = self.post_processing, spec, limits
        network.detections_per_img = spec.detections_per_image
        if nms_iou is not None:
            network.nms_thresh = nms_iou
        network.score_thresh = limits.score

    def fold(self) -> None:
        """Folds normalisation into convolutions, see `backbones.folding`. Then no weights can be loaded or saved."""
        fold(self.core)

    def drop_below(self, score: float) -> None:  # noqa: B027  # a detector need not save the work
        """Finds from now on nothing that is not surer, where that saves work. What is stays the same: it is found, and
        suppresses, before the rest."""

    # What only some distillation losses ask. A detector without it is refused by its name.

    def boxes(self, pyramid: Sequence[Tensor], frame: Frame, outputs: Outputs) -> Tensor:
        """The predicted box of each anchor, (N, anchors of all levels, 4), corners in the frame's pixels, not clipped.

        Gradients flow to `bbox_regression`.
        """
        raise self._lacks("a box for every cell")

    def object_anchors(self, pyramid: Sequence[Tensor], frame: Frame) -> list[Tensor]:
        """Anchors of the sizes that objects have: of each level, (h·w, A, 4), corners in pixels of the frame."""
        raise self._lacks("anchors")

    def weigh_positives(self, pyramid: Sequence[Tensor], frame: Frame, targets: Sequence[Target]) -> Tensor:
        """What the batch's anchors that stand for objects weigh together, (): what a sum over them is divided by."""
        raise self._lacks("anchors that stand for objects")

    def tower_start(self, tower: Tower, pyramid: Sequence[Tensor], convs: int) -> list[Tensor]:
        """What a tower of the head makes of a pyramid by its first convolutions, before the last one's ReLU.

        Args:
            convs: how many, 0 for the pyramid itself.

        Returns:
            Maps of the same shapes.
        """
        raise self._lacks("towers")

    def tower_outputs(self, tower: Tower, maps: Sequence[Tensor], convs: int) -> dict[str, Tensor]:
        """The head's `Outputs` of one tower that goes on from maps that `tower_start` would give.

        Args:
            maps: (N, channels, h, w) a level, before the ReLU of convolution `convs`.
            convs: how many convolutions lie behind the maps, 0 for a pyramid.
        """
        raise self._lacks("towers")

    def _lacks(self, what: str) -> UsageError:
        return UsageError(
            f"{self.spec.detector} has not {what}", "choose another --method", code="method-unfit-for-detector"
        )


def kind_of(detector: str) -> type[DetectorKind]:
    """The class of a detector, a key of `DETECTORS`."""
    module, _, name = DETECTORS[detector].file.partition(":")
    kind: type[DetectorKind] = getattr(import_module(module), name)
    return kind


def finite(detection: Detection) -> Detection:
    """A detection without the objects of which a value is no finite number: damaged weights predict such."""
    whole = [each.flatten(1).isfinite().all(dim=1) for name, each in detection.items() if each.dim() > 1]
    # A score that is no number has passed no threshold.
    kept = torch.stack(whole).all(dim=0)
    return {name: each[kept] for name, each in detection.items()}
