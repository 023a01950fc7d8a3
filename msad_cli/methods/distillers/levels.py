"""The levels of two pyramids that are compared, map by map."""

from torch import Tensor, nn

from msad_cli.methods.distillers.adapters import adapters
from msad_cli.methods.knowledge import Knowledge
from msad_cli.models.spec import DetectorSpec

DENSE, REGIONS = 5, 4
"""Levels, finest first: P3–P7 of the dense detectors, P2–P5 of the two-stage ones, whose P6 is a part of P5."""


class Levels(nn.Module):
    """A student's maps, brought to its teacher's channels, beside those of the teacher.

    It has no adapter for a level that carries no loss: such a parameter would never get a gradient.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec) -> None:
        super().__init__()
        self.adapters = adapters(student.channels, teacher.channels)[: DENSE if student.dense else REGIONS]

    def __len__(self) -> int:
        return len(self.adapters)

    def forward(self, student: Knowledge, teacher: Knowledge) -> list[tuple[Tensor, Tensor]]:
        """(student, teacher) a level, finest first: float32 maps of one shape (N, teacher's C, h, w)."""
        pairs = zip(self.adapters, student.pyramid[: len(self)], teacher.pyramid[: len(self)], strict=True)
        return [(adapt(mine).float(), theirs.float()) for adapt, mine, theirs in pairs]
