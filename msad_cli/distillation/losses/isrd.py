"""Input spatial representation distillation (Pixel Distillation, TPAMI 2024): the input layer knows the large image.

The decoder and the loss are those of the published code, which classifies. Its use in a detector is our reconstruction:
beside the detection loss, without padding, and of weight 1 (the code has 50 or 10 beside a classifier's loss).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.frame import FRAME_DIVISOR
from msad_cli.models.backbones.normalisation import norm_layer
from msad_cli.models.backbones.resnet import build_backbone
from msad_cli.models.detectors.base import Target
from msad_cli.models.spec import DetectorSpec

STEM_STRIDE = 2


class ISRD(nn.Module):
    """Mean |decoder(F) − x|: F is the student's first convolution on the small image, x the normalised large one.

    The decoder is a 1×1 convolution from C to 3·r² channels, a pixel shuffle by r = 2k, and PReLU; it is trained with
    the student and no part of it. The mean goes over the pixels of each image without its padding, then over images.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec) -> None:
        super().__init__()
        if 1 in student.ks:
            raise ValueError("method isrd: the student sees the large image itself")
        with torch.device("meta"):
            backbone = build_backbone(student.backbone, student.width, norm_layer("frozen"))
            channels = backbone.first_convolution(torch.empty(1, 3, STEM_STRIDE, STEM_STRIDE)).shape[1]
        scale = STEM_STRIDE * student.ks[-1]
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, 3 * scale**2, kernel_size=1, bias=False), nn.PixelShuffle(scale), nn.PReLU(3)
        )

    def forward(self, student: Knowledge, teacher: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """How far the large images are from what the student's input layer tells of them."""
        detector, views = student.detector, student.views
        k = detector.spec.ks[-1]
        aligned = detector.spec.scales == "aligned"
        divisor = detector.spec.divisor if aligned else FRAME_DIVISOR * k
        backbone = detector.backbone(k if aligned else 1).body
        decoded = self.decoder(backbone.first_convolution(detector.pixels(views[k], k, divisor)))
        differences = (decoded.float() - detector.pixels(views[1], 1, divisor)).abs()
        inside = [
            each[:, : image.shape[-2], : image.shape[-1]].mean()
            for each, image in zip(differences, views[1], strict=True)
        ]
        return {"image": torch.stack(inside).mean()}
