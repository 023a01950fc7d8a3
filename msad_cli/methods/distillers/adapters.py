"""What brings a student's maps to its teacher's channels, while it learns."""

from torch import nn

LEVELS = 5


def adapters(student_channels: int, teacher_channels: int) -> nn.ModuleList:
    """A module a level: maps (N, student's C, h, w) -> (N, teacher's C, h, w).

    Where the channels differ, a 1×1 convolution, trained with the student and no part of it; else nothing.
    """
    same = student_channels == teacher_channels
    return nn.ModuleList(
        nn.Identity() if same else nn.Conv2d(student_channels, teacher_channels, 1) for _ in range(LEVELS)
    )
