"""A plain implementation of MSAD's steps, as a baseline for `step.py`: written for clarity, with nothing saved.

As detectron2-style code does it: both passes give P2–P7 whole and each picks its five; images are padded to multiples
of 256 and the small one is every second pixel of the large one; the head runs, targets are assigned and losses are
computed for each view on its own, those of the teacher too while it only teaches; everything is float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection import FCOS, fcos_resnet50_fpn

from msad_cli.frame import Frame
from msad_cli.models.detector import Detector
from msad_cli.models.detectors.base import Target

PADDING = 256
HIGH, LOW = range(3, 8), range(2, 7)


@dataclass(frozen=True)
class Plain:
    """A detector of msad's, used without any of msad's savings."""

    detector: Detector

    def pixels(self, images: Sequence[Tensor]) -> Tensor:
        """uint8 HR images (3, h, w) -> (N, 3, H, W) float, padded to multiples of 256."""
        transform = self.detector.core.transform
        batch: Tensor = transform.batch_images([transform.normalize(each / 255) for each in images], PADDING)
        return batch

    def levels(self, pixels: Tensor) -> dict[int, Tensor]:
        """P2–P7 of a pass."""
        backbone = self.detector.core.backbone
        maps = backbone.body(pixels)
        stock = dict(
            zip((3, 4, 5), zip(backbone.fpn.inner_blocks, backbone.fpn.layer_blocks, strict=True), strict=True)
        )
        stock[2] = (backbone.finer["2"].inner, backbone.finer["2"].layer)
        found, merged = {}, None
        for level in (5, 4, 3, 2):
            inner, layer = stock[level]
            lateral = inner(maps[level])
            merged = lateral if merged is None else lateral + F.interpolate(merged, scale_factor=2.0, mode="nearest")
            found[level] = layer(merged)
        found[6] = backbone.fpn.extra_blocks.p6(found[5])
        found[7] = backbone.fpn.extra_blocks.p7(F.relu(found[6]))
        return found

    def both(self, images: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], Frame]:
        """The aligned pyramids of the large and the small image, and their frame."""
        large = self.pixels(images)
        high, low = self.levels(large), self.levels(large[..., ::2, ::2])
        frame = Frame(tuple((each.shape[-2], each.shape[-1]) for each in images), (large.shape[-2], large.shape[-1]))
        return [high[level] for level in HIGH], [low[level] for level in LOW], frame

    def losses(self, pyramid: list[Tensor], frame: Frame, targets: Sequence[Target]) -> Tensor:
        """The sum of the detection losses of one view: a pass of the head, an assignment of its own."""
        return torch.stack(list(self.detector.losses(pyramid, frame, targets).values())).sum()

    def teacher_step(self, images: Sequence[Tensor], targets: Sequence[Target]) -> None:
        """Forward and backward of L_Align + 0.4 · L_F."""
        high, low, frame = self.both(images)
        views = (high, low, self.detector.fuse([high, low]))
        weighted = [w * self.losses(each, frame, targets) for w, each in zip((1.0, 1.0, 0.4), views, strict=True)]
        torch.stack(weighted).sum().backward()

    def distil_step(self, teacher: "Plain", images: Sequence[Tensor], targets: Sequence[Target]) -> None:
        """Forward and backward of L_det + 0.6 · Σ mean |T − S|."""
        with torch.no_grad():
            high, low, frame = teacher.both(images)
            fused = teacher.detector.fuse([high, low])
            teacher.losses(fused, frame, targets)
        small = self.levels(self.pixels(images)[..., ::2, ::2])
        pyramid = [small[level] for level in LOW]
        distance = torch.stack([F.l1_loss(s, t) for s, t in zip(pyramid, fused, strict=True)]).sum()
        (self.losses(pyramid, frame, targets) + 0.6 * distance).backward()

    @torch.inference_mode()
    def student_inference(self, images: Sequence[Tensor]) -> None:
        """Detections from the small image, which is made from the large one; no teacher."""
        large = self.pixels(images)
        small = self.levels(large[..., ::2, ::2])
        frame = Frame(tuple((each.shape[-2], each.shape[-1]) for each in images), (large.shape[-2], large.shape[-1]))
        self.detector.kind.detect([small[level] for level in LOW], frame)

    @torch.inference_mode()
    def fused_inference(self, images: Sequence[Tensor]) -> None:
        """Detections of the teacher, whose head answers for every view."""
        high, low, frame = self.both(images)
        for each in (high, low):
            self.detector.outputs(each)
        self.detector.kind.detect(self.detector.fuse([high, low]), frame)


def stock_fcos(classes: int, size: tuple[int, int]) -> FCOS:
    """Torchvision's FCOS at HR, from random weights, its own resizing switched off by asking for what it is given."""
    height, width = size
    return fcos_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=classes + 1,
        min_size=min(height, width),
        max_size=max(height, width),
    )


def stock_step(model: FCOS, images: Sequence[Tensor], targets: Sequence[Target]) -> None:
    """Forward and backward of torchvision's detector on float images."""
    losses = model.train()([each / 255 for each in images], list(targets))
    torch.stack(list(losses.values())).sum().backward()


@torch.inference_mode()
def stock_inference(model: FCOS, images: Sequence[Tensor]) -> None:
    """Torchvision's detections on float images."""
    model.eval()([each / 255 for each in images])
