"""L1 between aligned pyramids (MSAD, section 3.3, equation for L_KD), reduced as the official code reduces it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msad_cli.methods.knowledge import Knowledge

LEVELS = 5


class FeatureL1(nn.Module):
    """Sum over levels of the mean absolute difference of maps (N, C, h, w); padding counts, as in the code.

    The paper prints a plain sum; its size would grow with the image, and no published weight fits it.

    Args:
        student_channels, teacher_channels: of their pyramids. Where they differ, a 1×1 convolution a level brings the
            student's maps to the teacher's channels; it is trained with the student and no part of it.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        adapted = LEVELS if student_channels != teacher_channels else 0
        self.adapters = nn.ModuleList(nn.Conv2d(student_channels, teacher_channels, 1) for _ in range(adapted))

    def forward(self, student: Knowledge, teacher: Knowledge) -> Tensor:
        """The distance of a student's pyramid from a teacher's; a number."""
        pyramid = student.pyramid
        if self.adapters:
            pyramid = [adapter(each) for adapter, each in zip(self.adapters, pyramid, strict=True)]
        differences = [F.l1_loss(s.float(), t.float()) for s, t in zip(pyramid, teacher.pyramid, strict=True)]
        return torch.stack(differences).sum()
