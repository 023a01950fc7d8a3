"""The detector of msad: one of torchvision's over an aligned pyramid, seen through views that share one frame."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from msad_cli.errors import UsageError
from msad_cli.frame import Frame, Resolution
from msad_cli.models.backbones.folding import fold
from msad_cli.models.backbones.normalisation import FUSED, norm_layer, select_view
from msad_cli.models.backbones.resnet import build_backbone
from msad_cli.models.decode.limits import OWN, SCORE_THRESHOLD, Limits
from msad_cli.models.detectors.base import Detection, Outputs, Target, kind_of
from msad_cli.models.fusion import build_fusion
from msad_cli.models.pyramid import AlignedBackbone
from msad_cli.models.spec import MOST_DETECTIONS, DetectorSpec, View

ROUNDING = 1e-6
"""More than that of a score's last digit in float32."""

Views = Mapping[int, Sequence[Tensor]]
"""The same N images downsampled by each k: uint8 RGB images (3, h/k, w/k), h × w being the HR size."""


class Detector(nn.Module):
    """A detector that is built from its spec alone.

    `kind` answers what depends on which detector it is; `core` is its network (torchvision's weights load into it by
    name); `low` is the second backbone, with its pyramid, of a fusion student that has one, else None; `fusion` makes
    one pyramid of those of several views, else None.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        self.spec = spec
        served = spec.ks if spec.scales == "aligned" else (1,)
        split = bool(spec.low_backbone)
        kind = kind_of(spec.detector)
        self.kind = kind(spec, _backbone(spec, spec.backbone, spec.width, served[:1] if split else served))
        self.core = self.kind.core
        self.low = _backbone(spec, spec.low_backbone, spec.low_width, served[1:]) if split else None
        self.fusion = build_fusion(spec.fusion, spec.channels, len(spec.ks)) if spec.fuses else None
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            # On the CPU though the rest be built without memory: a file has no value for them.
            self.register_buffer(name, torch.tensor(values, device="cpu")[:, None, None], persistent=False)

    def backbone(self, k: int) -> AlignedBackbone:
        """The backbone and pyramid that a view downsampled by k goes through."""
        backbone: AlignedBackbone = self.core.backbone if self.low is None or k == 1 else self.low
        return backbone

    def compilable(self) -> list[nn.Module]:
        """What computes most: each backbone with its pyramid, and the head (of two-stage detectors the proposals')."""
        return [self.core.backbone, *([] if self.low is None else [self.low]), self.kind.head]

    def frame(self, images: Sequence[Tensor], k: int, divisor: int | None = None) -> Frame:
        """The HR frame around images (3, h/k, w/k) that are downsampled by k.

        Args:
            divisor: its sides are multiples of so many HR pixels; the spec's unless given.
        """
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        return Frame.around(sizes, k, divisor or self.spec.divisor)

    @property
    def resolution(self) -> Resolution:
        """By which HR images are sized."""
        return self.spec.resolution

    def pixels(self, images: Sequence[Tensor], k: int, divisor: int | None = None) -> Tensor:
        """uint8 images (3, h/k, w/k) -> (N, 3, H/k, W/k) float: normalised, zero-padded to the frame's padded size.

        Args:
            divisor: to a multiple of so many HR pixels; the spec's unless given.
        """
        step = (divisor or self.spec.divisor) // k
        height, width = (max(image.shape[side] for image in images) for side in (-2, -1))
        batch = images[0].new_zeros(len(images), 3, height + -height % step, width + -width % step)
        for whole, image in zip(batch, images, strict=True):
            whole[:, : image.shape[-2], : image.shape[-1]] = image
        batch = self.normalised(batch)
        for whole, image in zip(batch, images, strict=True):
            # Padding is 0 behind the normalisation, as in torchvision.
            whole[:, image.shape[-2] :] = 0
            whole[:, :, image.shape[-1] :] = 0
        return as_convolved(batch)

    def normalised(self, images: Tensor) -> Tensor:
        """(N, 3, h, w) uint8 -> float, of each channel its distance from `spec.mean` in units of `spec.std`."""
        return (images.float() / 255 - self.mean) / self.std

    def pyramid(self, images: Sequence[Tensor], k: int, divisor: int | None = None) -> list[Tensor]:
        """The aligned maps of a view, finest first: (N, channels, H/s, W/s).

        The strides s, in HR pixels, are 8…128 for a dense detector, of RTMDet 8…32, and 4…64 for one of two stages.
        """
        return self.pyramid_of(self.pixels(images, k, divisor), k)

    def pyramid_of(self, pixels: Tensor, k: int) -> list[Tensor]:
        """As `pyramid`, of pixels (N, 3, H/k, W/k) that are normalised and padded.

        A head with statistics of its own for each view takes this one's from now on, and after `fuse` the fusion's.
        """
        select_view(self.kind.head, k)
        return self.backbone(k).pyramid(pixels, k)

    def select(self, view: View) -> None:
        """Has the head take the statistics of a view, for pyramids that were made elsewhere."""
        select_view(self.kind.head, FUSED if view == "fused" else self.spec.ks_of(view)[0])

    def fuse(self, pyramids: Sequence[list[Tensor]]) -> list[Tensor]:
        """Aligned pyramids of all views, k ascending -> the fused one, of the same shapes."""
        assert self.fusion is not None, "only a model of several views fuses"
        select_view(self.kind.head, FUSED)
        fused: list[Tensor] = self.fusion(list(pyramids))
        return fused

    def outputs(self, pyramid: Sequence[Tensor]) -> dict[str, Tensor]:
        """The head's raw outputs on a pyramid, (N, anchors, …) each; empty for one that has none before proposals."""
        return self.kind.outputs(pyramid)

    def boxes(self, pyramid: Sequence[Tensor], frame: Frame, outputs: Outputs) -> Tensor:
        """The predicted box of each anchor, (N, anchors, 4), corners in HR pixels, not clipped.

        Args:
            outputs: what `outputs` gave for this pyramid.

        Raises:
            UsageError: the detector has no box for each cell.
        """
        return self.kind.boxes(pyramid, frame, outputs)

    def losses(
        self, pyramid: Sequence[Tensor], frame: Frame, targets: Sequence[Target], outputs: Outputs | None = None
    ) -> dict[str, Tensor]:
        """Named detection losses of a pyramid against targets, both in the HR frame.

        Args:
            outputs: what `outputs` gave for this pyramid, if it was called already.
        """
        return self.kind.losses(pyramid, frame, targets, outputs)

    def losses_of_views(
        self, pyramids: Sequence[list[Tensor]], frame: Frame, targets: Sequence[Target]
    ) -> list[dict[str, Tensor]]:
        """What `losses` gives for each of several pyramids in the same frame."""
        return self.kind.losses_of_views(pyramids, frame, targets)

    def limit(self, nms_iou: float | None = None, most: int | None = None, limits: Limits = OWN) -> None:
        """Sets what is left of all that the head finds; what is None stays the detector's own.

        Args:
            nms_iou: with a surer box of the same class, above which one goes.
            most: detections of an image.
            limits: of what suppression looks at.

        Raises:
            UsageError: the detector suppresses in its own way, or a number is out of range.
        """
        if nms_iou is None and most is None and limits == OWN:
            return
        if not 0 <= (nms_iou or 0) <= 1 or not 1 <= (1 if most is None else most) <= MOST_DETECTIONS:
            raise UsageError(
                f"--nms-iou {nms_iou}, --max-detections {most}: out of range",
                f"give an IoU from 0 to 1, and 1 to {MOST_DETECTIONS} detections",
                code="number-out-of-range",
            )
        self.spec = replace(self.spec, detections_per_image=most or self.spec.detections_per_image)
        self.kind.limit(self.spec, nms_iou, limits)

    def fold(self) -> "Detector":
        """Itself, made faster for inference and unfit for all else: normalisation is folded into convolutions."""
        self.kind.fold()
        if self.low is not None:
            fold(self.low)
        return self

    def drop_below(self, score: float) -> float:
        """Finds from now on nothing of lower scores, where that saves work; what has the score stays the same.

        Returns:
            The lowest score that is found.
        """
        # Thresholds are passed by what is surer, and the score of best F1 is one that a detection has.
        self.kind.drop_below(score * (1 - ROUNDING))
        return max(score, SCORE_THRESHOLD)

    def detect(self, views: Views, view: View) -> list[Detection]:
        """Detections in HR pixels, one dict an image.

        Args:
            views: the pixels that `spec.ks_of(view)` asks for.
            view: one of `spec.views`.
        """
        return self.finish(self.look(views, view))

    def look(self, views: Views, view: View) -> "Seen":
        """The first part of `detect`: all that is computed before the decoding of boxes."""
        ks = self.spec.ks_of(view)
        if self.spec.scales != "aligned":
            # A baseline takes a small image for an ordinary one; only its detections are brought to HR pixels.
            (k,) = ks
            pyramid, frame, scale = self.pyramid(views[k], 1), self.frame(views[k], 1), k
        else:
            pyramids = [self.pyramid(views[k], k) for k in ks]
            pyramid = self.fuse(pyramids) if view == "fused" else pyramids[0]
            frame, scale = self.frame(views[ks[0]], ks[0]), 1
        return Seen(pyramid, frame, scale, self.outputs(pyramid))

    def finish(self, seen: "Seen") -> list[Detection]:
        """The second part of `detect`: RoIs, in two-stage detectors, and non-maximum suppression."""
        detections = self.kind.detect(seen.pyramid, seen.frame, seen.outputs)
        k = seen.scale
        scales = {"boxes": [k, k, k, k], "keypoints": [k, k, 1]} if k > 1 else {}
        return [
            {name: value * value.new_tensor(scales[name]) if name in scales else value for name, value in each.items()}
            for each in detections
        ]


class Seen(NamedTuple):
    """What a detector makes of a batch before it decodes boxes.

    Attributes:
        pyramid: maps (N, channels, h, w), finest first.
        frame: in which its boxes will be; HR, or that of the small image for a detector that is not aligned.
        scale: HR pixels for a pixel of the frame.
        outputs: the head's raw outputs; empty for one that has none before proposals.
    """

    pyramid: list[Tensor]
    frame: Frame
    scale: int
    outputs: Outputs


def as_convolved(maps: Tensor) -> Tensor:
    """(N, C, h, w) laid out as convolutions want it: channels last in a GPU's half precision, which they keep.

    On a CPU that takes 1.02 to 1.12 of the time (docs/performance.md).
    """
    if maps.device.type == "cpu" or not torch.is_autocast_enabled(maps.device.type):
        return maps
    return maps.contiguous(memory_format=torch.channels_last)


def _backbone(spec: DetectorSpec, name: str, width: float, ks: tuple[int, ...]) -> AlignedBackbone:
    return kind_of(spec.detector).above(spec, build_backbone(name, width, norm_layer(spec.norm, ks)), ks)
