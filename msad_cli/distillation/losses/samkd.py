"""Spatial-aware masked distillation of maps and outputs (SAMKD: arXiv 2501.07101v2, 2025, which rewrites DSAMKD)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.distillation.parts.attention import channel_attention, spatial_attention, without_top
from msad_cli.distillation.parts.differing_outputs import difference_weight, weighted_outputs
from msad_cli.distillation.parts.generators import DualGenerator, generation_loss, published
from msad_cli.distillation.parts.levels import Levels, distinct_levels
from msad_cli.models.detectors.base import Target
from msad_cli.models.spec import DetectorSpec

REGIONS = (1, 2, 4)
"""r, from coarse to fine: a map is cut into r × r regions."""
HIDDEN = 0.5
"""ρ: the share of a region's cells, and of its channels, that is hidden."""


class SAMKD(nn.Module):
    """Maps generated with a part of every region hidden, and the outputs of those regions whose maps differ.

    A level is cut into r × r regions for r = 1, 2, 4. A_r is the teacher's attention A^sp inside of each region. R_r is
    what a DMKD generator makes of the student's map without the cells and channels of each region that the teacher
    attends to most there:

        features = α·Σ_levels mean_r Σ A_r·(R_r − F^T)² / N                 generators for each r, for all levels

    With D = mean |F^S − F^T| of a region of the finest cut, and W = min(5, D / mean D), 0 below the level's median, the
    outputs of a cell are compared with its region's W (`weighted_outputs`). As by DSAMKD, outputs are for dense
    students of their own teacher's detector alone, and boxes for aligned ones.

    A reconstruction. Certain, from the abstract: masking over a spatial pyramid, from coarse to fine, led by the
    teacher's attention, and masked outputs led by how far regions' features differ. Ours: the formulas and their
    constants. The cuts stand side by side and weigh the same. α is MGD's.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec) -> None:
        super().__init__()
        self.levels = Levels(student, teacher, distinct_levels(student))
        self.generators = nn.ModuleList(DualGenerator(teacher.channels) for _ in REGIONS)
        self.alpha = published(student).alpha
        self.compares_outputs = student.dense and student.detector == teacher.detector

    def forward(self, student: Knowledge, teacher: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The distance of a student's maps, and of its outputs if it is dense, from a teacher's."""
        pairs = self.levels(student, teacher)
        parts = [
            _generated_loss(generate, mine, theirs, sides) / len(REGIONS)
            for sides, generate in zip(REGIONS, self.generators, strict=True)
            for mine, theirs in pairs
        ]
        losses = {"features": self.alpha * torch.stack(parts).sum()}
        if self.compares_outputs:
            cells = torch.cat([region_weight(mine.detach(), theirs).flatten(1) for mine, theirs in pairs], dim=1)
            anchors = student.outputs["cls_logits"].shape[1] // cells.shape[1]
            losses |= weighted_outputs(student, teacher, cells.repeat_interleave(anchors, dim=1))
        return losses


def by_region(maps: Tensor, sides: int, of_region: Callable[[Tensor], Tensor]) -> Tensor:
    """What a function makes of each of a map's sides × sides regions, in their places.

    Regions differ by a cell where the map's sides cannot be divided; of a smaller map there are fewer.

    Args:
        maps: (N, C, h, w).
        of_region: from (N, C, a, b) to (N, any number, a, b).
    """
    height, width = maps.shape[2:]
    rows = (
        torch.cat([of_region(region) for region in row.tensor_split(min(sides, width), dim=3)], dim=3)
        for row in maps.tensor_split(min(sides, height), dim=2)
    )
    return torch.cat(list(rows), dim=2)


def region_weight(student: Tensor, teacher: Tensor) -> Tensor:
    """Each cell's weight (N, h, w) from maps (N, C, h, w) of one level: how far they are apart in its finest region."""
    apart = (student - teacher).abs().mean(dim=1, keepdim=True)
    by_cell = by_region(apart, REGIONS[-1], lambda region: region.mean(dim=(2, 3), keepdim=True).expand_as(region))
    return difference_weight(by_cell.flatten(1)).view_as(by_cell[:, 0])


def _generated_loss(generate: nn.Module, mine: Tensor, theirs: Tensor, sides: int) -> Tensor:
    """One cut of one level: Σ A_r·(R_r − F^T)² / N."""
    attention = by_region(theirs, sides, lambda region: spatial_attention(region)[:, None])
    cells = by_region(attention, sides, lambda region: without_top(region, HIDDEN))
    channels = by_region(theirs, sides, _without_strongest_channels)
    return generation_loss(generate(mine, cells, channels), theirs, attention)


def _without_strongest_channels(region: Tensor) -> Tensor:
    return without_top(channel_attention(region), HIDDEN)[:, :, None, None].expand_as(region)
