"""RetinaNet (Lin et al., ICCV 2017): torchvision's, with a head of any size."""

from collections.abc import Sequence

from torch import Tensor
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.retinanet import RetinaNetHead

from msad_cli.models.detectors.anchors import octave_anchors
from msad_cli.models.detectors.base import BACKGROUND, FPN_NAMES, HeadRows, Outputs, PublishedWeights, Target
from msad_cli.models.detectors.dense import DenseKind, MatchingHead, dense_options
from msad_cli.models.detectors.towers import by_anchor, depthwise_tower, nested, plain_tower, set_towers
from msad_cli.models.pyramid import AlignedBackbone

TOWER_NAMES = {rf"(head\.\w+_head\.conv)\.{2 * i}\.(weight|bias)": rf"\1.{i}.0.\2" for i in range(4)}


class RetinaNetKind(DenseKind):
    """RetinaNet on given features: classes and box deltas for nine anchors at each cell."""

    # Of each of its 9 anchors, a row a class.
    rows = HeadRows(classes={"head.classification_head.cls_logits": 9})
    published = PublishedWeights(
        name="retinanet_resnet50_fpn",
        old_names=FPN_NAMES | TOWER_NAMES,
        without_epsilon=True,
    )

    def build(self, backbone: AlignedBackbone, classes: int) -> RetinaNet:
        """At 256 channels and 4 convolutions torchvision's own in shape."""
        spec = self.spec
        anchors = octave_anchors(spec)
        head = _Head(spec.channels, anchors.num_anchors_per_location()[0], classes)
        if spec.head_depthwise and spec.head_norm == "batch":
            set_towers(head, [nested(each) for each in self.level_towers()])
        elif spec.head_depthwise:
            set_towers(head, [nested(depthwise_tower(spec.channels, spec.head_convs)) for _ in range(2)])
        elif spec.head_convs != len(head.classification_head.conv):
            # Torchvision's own constructor knows only towers of 4.
            set_towers(head, [plain_tower(spec.channels, spec.head_convs) for _ in range(2)])
        return RetinaNet(backbone, classes, anchor_generator=anchors, head=head, **dense_options(self))

    def decoded(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Box deltas (R, 4) at anchors (R, 4) -> boxes (R, 4)."""
        boxes: Tensor = self.core.box_coder.decode_single(deltas, anchors)
        return boxes

    def scores(self, outputs: Outputs) -> Tensor:
        """The probability of the classes."""
        return outputs["cls_logits"][..., len(BACKGROUND) :].sigmoid()

    def matches(self, targets: Sequence[Target], anchors: list[Tensor], per_level: list[int]) -> list[Tensor]:
        """By overlap, as torchvision has it; below 0 are no object's, those between the two thresholds among them."""
        matches: list[Tensor] = self.core.compute_loss(list(targets), None, anchors)
        return matches

    def regression_outputs(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """`bbox_regression`."""
        head = self.core.head.regression_head
        return {"bbox_regression": by_anchor([head.bbox_reg(each) for each in features], 4)}


class _Head(MatchingHead, RetinaNetHead):  # type: ignore[misc]
    """Torchvision's."""
