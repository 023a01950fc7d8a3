"""Aligned multi-scale training with fusion: what makes the teacher (MSAD, section 3; official code's joint mode)."""

from collections.abc import Sequence

from torch import Tensor, nn

from msad_cli.frame import Frame
from msad_cli.models.detector import Detector, Views
from msad_cli.models.detectors.base import Target

FUSION_WEIGHT = 0.4
"""λ: the paper's default is 1.0 and its best, like the code's, 0.4."""


def view_pyramids(detector: Detector, views: Views) -> tuple[list[list[Tensor]], Frame]:
    """The aligned pyramid of each view, k ascending, and the frame of all."""
    ks = detector.spec.ks
    return [detector.pyramid(views[k], k) for k in ks], detector.frame(views[ks[0]], ks[0])


def aligned_losses(
    detector: Detector, pyramids: Sequence[list[Tensor]], frame: Frame, targets: Sequence[Target]
) -> dict[str, Tensor]:
    """L_Align: the losses `k1/…`, `k2/…` of each view's pyramid against the same targets.

    A pyramid beyond those of the views is the fused one; its losses are `fused/…`.
    """
    names = [*(f"k{k}" for k in detector.spec.ks), "fused"]
    losses = detector.losses_of_views(pyramids, frame, targets)
    return {f"{name}/{part}": loss for name, each in zip(names, losses, strict=False) for part, loss in each.items()}


class AlignedTraining(nn.Module):
    """L_T = L_Align + λ·L_fused: one head, one frame, one set of targets for every view and for their fusion.

    Args:
        detector: a teacher.
        fusion_weight: λ.
    """

    def __init__(self, detector: Detector, fusion_weight: float = FUSION_WEIGHT) -> None:
        super().__init__()
        self.detector = detector
        self.fusion_weight = fusion_weight

    def forward(self, views: Views, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Losses named `k1/…`, `k2/…`, `fused/…`, ready to be summed; boxes of the targets in HR pixels."""
        pyramids, frame = view_pyramids(self.detector, views)
        losses = aligned_losses(self.detector, [*pyramids, self.detector.fuse(pyramids)], frame, targets)
        return {name: self.fusion_weight * loss if name.startswith("fused/") else loss for name, loss in losses.items()}
