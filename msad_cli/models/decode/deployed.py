"""One view of a detector as an ordinary network in pixels of its own input: pixels in, boxes out."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from msad_cli.frame import FRAME_DIVISOR
from msad_cli.models.decode.nms import DROPPED, suppressed, taken, top
from msad_cli.models.detector import Detector
from msad_cli.models.spec import View

INPUT = "images"
OUTPUTS = {
    "boxes": ("boxes", "scores", "labels"),
    "masks": ("boxes", "scores", "labels", "masks"),
    "keypoints": ("boxes", "scores", "labels", "keypoints", "keypoints_scores"),
}
"""Names of what `Deployed` takes, and of what it gives, in order, by task."""


class Deployed(nn.Module):
    """Normalisation, padding, network, decoding and suppression of one view, for batches of images of one size.

    Args:
        detector: in eval mode.
        view: one of `detector.spec.views` that sees a single image.
        overlap: IoU with a surer box of any class above which one is left out. None gives both.
    """

    def __init__(self, detector: Detector, view: View, overlap: float | None = None) -> None:
        super().__init__()
        self.detector = detector
        self.overlap = overlap
        (seen,) = detector.spec.ks_of(view)
        # A detector that is not aligned takes whatever it sees for an ordinary image.
        self.k = seen if detector.spec.scales == "aligned" else 1
        self.levels = detector.spec.levels
        self.divisor = detector.spec.divisor

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detections of a batch, in pixels of its images, the best first.

        Args:
            images: (N, 3, h, w) uint8, RGB.

        Returns:
            As `OUTPUTS` names them: boxes (N, D, 4), corners; scores (N, D); labels (N, D) int64, from 1; by task masks
            (N, D, 28, 28), probabilities on a grid over each box; or keypoints (N, D, K, 3), x, y and 1, with their
            logits (N, D, K). Where an image has fewer than D detections, all of the rest is 0.
        """
        height, width = images.shape[2:]
        divisor = self.divisor // self.k
        pixels = F.pad(self.detector.normalised(images), (0, -width % divisor, 0, -height % divisor))
        pyramid = self.detector.pyramid_of(pixels, self.k)
        size = (height * self.k, width * self.k)
        boxes, scores, labels, *more = self.detector.kind.decode(pyramid, self._strides(pyramid, pixels), size)
        if self.overlap is not None:
            alone = suppressed(boxes, scores, self.overlap, scores.shape[1])
            scores, places = top(alone, scores.shape[1])
            boxes, labels, *more = (
                taken(each.flatten(2) if each.dim() > 2 else each[..., None], places).view_as(each)
                for each in (boxes, labels, *more)
            )
        there = scores > DROPPED
        if self.detector.spec.task == "keypoints":
            more = [more[0] / more[0].new_tensor([self.k, self.k, 1]), more[1]]
        return (boxes / self.k * there[..., None], scores * there, labels * there, *more)

    def _strides(self, pyramid: Sequence[Tensor], pixels: Tensor) -> list[tuple[int, int]]:
        """HR pixels a cell of each level, down and across: whole cells, or as torchvision divides sides."""
        if self.divisor == FRAME_DIVISOR or self.detector.spec.scales == "aligned":
            return [(2**level, 2**level) for level in self.levels]
        return [
            (pixels.shape[2] * self.k // each.shape[2], pixels.shape[3] * self.k // each.shape[3]) for each in pyramid
        ]
