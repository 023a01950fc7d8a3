"""Aligned multi-scale training with fusion: what makes the teacher (MSAD, section 3; official code's joint mode)."""

from collections.abc import Sequence

from torch import Tensor, nn

from msad_cli.models.detector import Detector, Views
from msad_cli.models.on_features import Target

FUSION_WEIGHT = 0.4
"""λ: the paper's default is 1.0 and its best, like the code's, 0.4."""


class AlignedTraining(nn.Module):
    """L_T = L_H + L_L + λ·L_fused: one head, one frame, one set of targets for every view and for their fusion.

    Args:
        detector: a teacher.
        fusion_weight: λ.
    """

    def __init__(self, detector: Detector, fusion_weight: float = FUSION_WEIGHT) -> None:
        super().__init__()
        self.detector = detector
        self.fusion_weight = fusion_weight

    def forward(self, views: Views, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Losses named `k1/…`, `k2/…`, `fused/…`, ready to be summed; targets in the HR frame."""
        ks = self.detector.spec.ks
        frame = self.detector.frame(views[ks[0]], ks[0])
        pyramids = {f"k{k}": self.detector.pyramid(views[k], k) for k in ks}
        fused = self.detector.fuse(list(pyramids.values()))
        losses = {}
        for view, pyramid in {**pyramids, "fused": fused}.items():
            weight = self.fusion_weight if view == "fused" else 1.0
            for name, loss in self.detector.losses(pyramid, frame, targets).items():
                losses[f"{view}/{name}"] = weight * loss
        return losses
