"""The levels of two pyramids that are compared, map by map."""

from collections.abc import Sequence

from torch import Tensor, nn

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.models.pyramid import subsampled_top
from msad_cli.models.spec import DetectorSpec


def distinct_levels(student: DetectorSpec) -> int:
    """How many levels say something of their own, finest first: P6 of P2–P6 is a part of P5."""
    count = len(student.levels)
    return count - 1 if subsampled_top(student.finest_level) else count


def by_level(outputs: Tensor, pyramid: Sequence[Tensor]) -> Sequence[Tensor]:
    """A dense head's outputs (N, anchors of all levels, …) level by level, for a pyramid of maps (N, C, h, w)."""
    cells = [each.shape[-2] * each.shape[-1] for each in pyramid]
    anchors = outputs.shape[1] // sum(cells)
    levels: Sequence[Tensor] = outputs.split([anchors * each for each in cells], dim=1)
    return levels


class Levels(nn.Module):
    """A student's maps, brought to its teacher's channels, beside those of the teacher.

    Where the channels differ, there is a 1×1 convolution for each level that is compared, trained with the student and
    no part of it. Levels that are not compared have none: it would never get a gradient.

    Args:
        count: how many levels are compared at most, finest first; all unless given.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec, count: int | None = None) -> None:
        super().__init__()
        count = min(len(student.levels), count or len(student.levels))
        same = student.channels == teacher.channels
        self.adapters = nn.ModuleList(
            nn.Identity() if same else nn.Conv2d(student.channels, teacher.channels, 1) for _ in range(count)
        )

    def __len__(self) -> int:
        return len(self.adapters)

    def forward(self, student: Knowledge, teacher: Knowledge) -> list[tuple[Tensor, Tensor]]:
        """(student, teacher) a level, finest first: float32 maps of one shape (N, teacher's C, h, w)."""
        pairs = zip(self.adapters, student.pyramid[: len(self)], teacher.pyramid[: len(self)], strict=True)
        return [(adapt(mine).float(), theirs.float()) for adapt, mine, theirs in pairs]
