"""Two-step training of the teacher (MSAD, section 3.2): first the aligned views, then the fusion alone."""

from collections.abc import Sequence

import torch
from torch import Tensor

from msad_cli.distillation.aligned_teacher import aligned_losses, view_pyramids
from msad_cli.distillation.parts.steps import StepCounter
from msad_cli.models.backbones.normalisation import start_fused
from msad_cli.models.detector import Detector, Views
from msad_cli.models.detectors.base import Target

FUSION_SHARE = 0.25
"""Of all steps: a third of the first step's length. The paper does not say."""


class TwoStepTraining(StepCounter):
    """L_Align for some steps; from then on backbone, pyramid and head stand still, and L_F trains the fusion.

    Args:
        detector: a teacher.
        align_steps: how many steps the first step has.
    """

    def __init__(self, detector: Detector, align_steps: int) -> None:
        super().__init__()
        self.detector = detector
        self.align_steps = align_steps

    def forward(self, views: Views, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Losses named `k1/…`, `k2/…`, later `fused/…`, ready to be summed; boxes of the targets in HR pixels."""
        self.count_step()
        if not self.passed(self.align_steps):
            return aligned_losses(self.detector, *view_pyramids(self.detector, views), targets)
        detector = self.detector.eval().requires_grad_(False)
        # A head with batch statistics has seen no fused maps so far.
        start_fused(detector.kind.head)
        assert detector.fusion is not None, "only a teacher fuses"
        detector.fusion.train().requires_grad_(True)
        with torch.no_grad():
            pyramids, frame = view_pyramids(detector, views)
        losses = detector.losses(detector.fuse(pyramids), frame, targets)
        return {f"fused/{name}": loss for name, loss in losses.items()}
