"""The detector of msad: torchvision's FCOS over an aligned pyramid, seen through views that share one frame."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead

from msad_cli.models.backbones import ResNetBody
from msad_cli.models.fusion import CrossFusion
from msad_cli.models.normalisation import norm_layer
from msad_cli.models.on_features import Detection, Target, dense_detections, dense_losses, dense_outputs
from msad_cli.models.pyramid import AlignedBackbone
from msad_cli.models.spec import DetectorSpec, View
from msad_cli.structures.frame import FRAME_DIVISOR, Frame

Views = Mapping[int, Sequence[Tensor]]
"""The same N pictures at each reduction k: uint8 RGB images (3, h/k, w/k), h × w being the HR size."""

BACKGROUND = (0,)
"""The label that no object has, as in torchvision's own weights; an untrained head answers it all the same."""

SCORE_THRESHOLD = 0.05
"""Detections scored lower are dropped. COCO's AP counts weak detections too; torchvision's 0.2 would cut them off."""


def anchor_generator() -> AnchorGenerator:
    """One square anchor a cell, as large as the level's stride in HR pixels: torchvision's own default for FCOS."""
    return AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((1.0,),) * 5)


class Detector(nn.Module):
    """A detector that is built from its spec alone.

    `core` is torchvision's FCOS (its weights load into it by name); `fusion` is the C-FF of a teacher, else None.
    """

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        self.spec = spec
        aligned = spec.scales == "aligned"
        body = ResNetBody(spec.backbone, spec.width, norm_layer(spec.norm))
        backbone = AlignedBackbone(body, spec.channels, max(spec.ks) if aligned else 1)
        classes = len(spec.classes) + len(BACKGROUND)
        self.core = FCOS(
            backbone,
            classes,
            image_mean=list(spec.mean),
            image_std=list(spec.std),
            anchor_generator=anchor_generator(),
            head=FCOSHead(spec.channels, 1, classes, num_convs=spec.head_convs),
            score_thresh=SCORE_THRESHOLD,
        )
        self.fusion = CrossFusion(spec.channels, len(spec.ks)) if spec.role == "teacher" else None
        if 1 not in spec.ks:
            # No reduced view reaches P7. A parameter without a gradient would stall distributed training.
            backbone.fpn.extra_blocks.p7.requires_grad_(False)

    def frame(self, images: Sequence[Tensor], k: int) -> Frame:
        """The HR frame around images (3, h/k, w/k) that are reduced k times."""
        return Frame.around([(image.shape[-2], image.shape[-1]) for image in images], k)

    def pixels(self, images: Sequence[Tensor], k: int) -> Tensor:
        """uint8 images (3, h/k, w/k) -> (N, 3, H/k, W/k) float: normalised, zero-padded to the frame's padded size."""
        transform = self.core.transform
        normalised = [transform.normalize(image.float() / 255) for image in images]
        batch: Tensor = transform.batch_images(normalised, size_divisible=FRAME_DIVISOR // k)
        return batch

    def pyramid(self, images: Sequence[Tensor], k: int) -> list[Tensor]:
        """The five aligned maps of a view, (N, channels, H/s, W/s) for s = 8…128 HR pixels."""
        levels: list[Tensor] = self.core.backbone.pyramid(self.pixels(images, k), k)
        return levels

    def fuse(self, pyramids: Sequence[list[Tensor]]) -> list[Tensor]:
        """Aligned pyramids of all views, k ascending -> the fused one, of the same shapes."""
        assert self.fusion is not None, "only a teacher fuses"
        fused: list[Tensor] = self.fusion(list(pyramids))
        return fused

    def outputs(self, pyramid: Sequence[Tensor]) -> dict[str, Tensor]:
        """The head's raw answers on a pyramid, (N, anchors, …) each; of dense detectors only."""
        return dense_outputs(self.core, pyramid)

    def losses(
        self,
        pyramid: Sequence[Tensor],
        frame: Frame,
        targets: Sequence[Target],
        outputs: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Named detection losses of a pyramid against targets, both in the HR frame.

        Args:
            outputs: what `outputs` gave for this pyramid, if it was called already.
        """
        return dense_losses(self.core, pyramid, frame, targets, outputs)

    def detect(self, views: Views, view: View) -> list[Detection]:
        """Detections in HR pixels, one dict an image.

        Args:
            views: the pixels that `spec.ks_of(view)` asks for.
            view: one of `spec.views`.
        """
        ks = self.spec.ks_of(view)
        if self.spec.scales != "aligned":
            return self._detect_unshifted(views[ks[0]], ks[0])
        frame = self.frame(views[ks[0]], ks[0])
        pyramids = [self.pyramid(views[k], k) for k in ks]
        return dense_detections(self.core, self.fuse(pyramids) if view == "fused" else pyramids[0], frame, BACKGROUND)

    def _detect_unshifted(self, images: Sequence[Tensor], k: int) -> list[Detection]:
        # A baseline takes a reduced image for an ordinary one; only its answer is brought to HR pixels.
        detections = dense_detections(self.core, self.pyramid(images, 1), self.frame(images, 1), BACKGROUND)
        return [{**each, "boxes": each["boxes"] * k} for each in detections]
