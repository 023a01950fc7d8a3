"""L1 between aligned pyramids (MSAD, section 3.3, equation for L_KD), averaged as in the official code."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.distillation.parts.levels import Levels
from msad_cli.models.detectors.base import Target
from msad_cli.models.spec import DetectorSpec


class FeatureL1(nn.Module):
    """Sum over levels of the mean absolute difference of maps (N, C, h, w); padding counts, as in the code.

    The paper prints a plain sum; its size would grow with the image, and no published weight fits it.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec) -> None:
        super().__init__()
        self.levels = Levels(student, teacher)

    def forward(self, student: Knowledge, teacher: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The distance of a student's pyramid from a teacher's."""
        differences = [F.l1_loss(mine, theirs) for mine, theirs in self.levels(student, teacher)]
        return {"pyramid": torch.stack(differences).sum()}
