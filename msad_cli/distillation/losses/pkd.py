"""Distillation by Pearson correlation (Cao et al., "PKD", NeurIPS 2022)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.distillation.parts.levels import Levels
from msad_cli.distillation.parts.moments import standardised
from msad_cli.models.detectors.base import Target
from msad_cli.models.spec import DetectorSpec

COMPARED = 4
"""The finest levels, as in the official code: P3–P6 of dense detectors, P2–P5 of those of two stages."""


class PKD(nn.Module):
    """Sum over four levels of ½·MSE of maps (N, C, h, w) whose channels are standardised over images and cells.

    This is 1 − r, the mean over channels of Pearson's correlation: 0 for channels that differ by a positive factor and
    a shift, so that teachers of another magnitude compare. Up to 2.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec) -> None:
        super().__init__()
        self.levels = Levels(student, teacher, COMPARED)

    def forward(self, student: Knowledge, teacher: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The distance of a student's pyramid from a teacher's."""
        pairs = self.levels(student, teacher)
        levels = [F.mse_loss(standardised(s), standardised(t)) / 2 for s, t in pairs]
        return {"pyramid": torch.stack(levels).sum()}
