"""Pooled outputs distillation (Douillard et al., "PODNet", ECCV 2020: POD-spatial)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.distillation.parts.levels import Levels
from msad_cli.models.detectors.base import Target
from msad_cli.models.spec import DetectorSpec


class PODNet(nn.Module):
    """Distance of what maps F (N, C, h, w) hold in each row and in each column:

        v = [Σ_w F² ; Σ_h F²] of all channels, divided by its L2 norm,    L = mean over N and levels of ‖v^T − v^S‖₂

    From 0, for maps that differ by a factor at most, to √2, v having no negative parts. Reconstruction: the formula is
    that of the paper on incremental classifiers; that levels are averaged, as its layers are, and its weight of 3 are
    from memory of its code, and what MSAD's table 3(a) took is not published.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec) -> None:
        super().__init__()
        self.levels = Levels(student, teacher)

    def forward(self, student: Knowledge, teacher: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The distance of a student's pyramid from a teacher's."""
        # Where two vectors are equal, torch takes 0 for the gradient of the norm of their difference.
        levels = [(_pooled(t) - _pooled(s)).norm(dim=1).mean() for s, t in self.levels(student, teacher)]
        return {"pyramid": torch.stack(levels).mean()}


def _pooled(maps: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C·(h + w)), of length 1."""
    squares = maps.square()
    return F.normalize(torch.cat([squares.sum(dim=3).flatten(1), squares.sum(dim=2).flatten(1)], dim=1), dim=1)
