"""Focal and global distillation (FGD: Yang et al., CVPR 2022)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.distillation.parts.attention import channel_attention, spatial_attention
from msad_cli.distillation.parts.levels import Levels, distinct_levels
from msad_cli.frame import Frame
from msad_cli.models.detectors.base import Target
from msad_cli.models.spec import DetectorSpec

PARTS = ("foreground", "background", "attention", "relation")


class Constants(NamedTuple):
    """α, β, γ and λ, the weights of `PARTS`, and the attentions' temperature t."""

    weights: tuple[float, float, float, float]
    temperature: float


OFFICIAL = {"retinanet": Constants((1e-3, 5e-4, 5e-4, 5e-6), 0.5), "fcos": Constants((1.6e-3, 8e-4, 8e-4, 8e-6), 0.8)}
"""Those of the official code's configurations, by detector."""
OTHERWISE = {"dense": OFFICIAL["retinanet"], "two-stage": Constants((5e-5, 2.5e-5, 5e-5, 5e-7), 0.5)}
"""By family; those of two stages are of Faster and Mask R-CNN."""


class FGD(nn.Module):
    """Maps compared in and outside of objects, where the teacher looks; the attentions; and each map's wide relations.

    With A the teacher's attentions, M the masks of `masks` and R the context block, summed over the levels:

        foreground = α·Σ M_fg·A^sp·A^ch·(F^S − F^T)² / N           (background the same with β and M_bg)
        attention = γ·(Σ |A^sp(F^S) − A^sp(F^T)| + Σ |A^ch(F^S) − A^ch(F^T)|) / N
        relation = λ·Σ (R^S(F^S) − R^T(F^T))² / N

    As the official code has it, with the weights and t of its configuration for the detector, but for a box's cells, of
    which it counts one row and one column too many, and which it takes from the unpadded image's size. The teacher's
    block learns too, though nothing of the teacher does.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec) -> None:
        super().__init__()
        self.levels = Levels(student, teacher, distinct_levels(student))
        blocks = [nn.ModuleList(Context(teacher.channels) for _ in range(len(self.levels))) for _ in range(2)]
        self.student_contexts, self.teacher_contexts = blocks
        self.constants = OFFICIAL.get(student.detector, OTHERWISE[student.family])

    def forward(self, student: Knowledge, teacher: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The distances of a student's pyramid from a teacher's, given the boxes of the student's frame."""
        contexts = zip(self.student_contexts, self.teacher_contexts, strict=True)
        levels = []
        for (mine, theirs), (relate, relate_theirs) in zip(self.levels(student, teacher), contexts, strict=True):
            foreground, background = masks(targets, student.frame, mine.shape[-2], mine.shape[-1])
            relation = F.mse_loss(relate(mine), relate_theirs(theirs), reduction="sum")
            attends, attended = (_attentions(maps, self.constants.temperature) for maps in (mine, theirs))
            squares = attended[0] * attended[1] * (mine - theirs).square()
            focal = [(mask[:, None] * squares).sum() for mask in (foreground, background)]
            attention = [F.l1_loss(*each, reduction="sum") for each in zip(attends, attended, strict=True)]
            levels.append(torch.stack([*focal, attention[0] + attention[1], relation]) / len(mine))
        sums = torch.stack(levels).sum(dim=0)
        return {part: weight * value for part, weight, value in zip(PARTS, self.constants.weights, sums, strict=True)}


class Context(nn.Module):
    """F + what the image as a whole says of each channel (GcBlock: Cao et al., ICCV Workshops 2019).

    Cells are averaged with weights that are learnt (a 1×1 convolution and a softmax); then C -> C/2 -> C. The last
    layer starts at zero, so that at first the map stays what it is.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        # A bias would be the same for all cells, which the softmax takes out again.
        self.attend = nn.Conv2d(channels, 1, 1, bias=False)
        hidden = channels // 2
        self.transform = nn.Sequential(
            nn.Linear(channels, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )
        nn.init.kaiming_normal_(self.attend.weight)
        for each in self.transform[-1].parameters():
            nn.init.zeros_(each)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w), float32."""
        share = self.attend(maps).float().flatten(2).softmax(dim=2)
        context = (maps.flatten(2) * share).sum(dim=2)
        change: Tensor = self.transform(context)
        return maps + change[:, :, None, None]


def masks(targets: Sequence[Target], frame: Frame, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Foreground and background (N, height, width) of a level, indexed [y, x] as maps are.

    A cell that boxes lie on has 1/area of the smallest of them, in cells; each of the others, padding among them, 1/the
    number of these others.

    Args:
        targets: boxes (M, 4), corners in pixels of the frame.
    """
    foreground = torch.stack([_smallest_box(each["boxes"], frame, height, width) for each in targets])
    outside = (foreground == 0).to(foreground.dtype)
    return foreground, outside / outside.sum(dim=(1, 2), keepdim=True).clamp(min=1.0)


def _smallest_box(boxes: Tensor, frame: Frame, height: int, width: int) -> Tensor:
    """(height, width): 1/area of the smallest box that lies on a cell, 0 where none does."""
    if not len(boxes):
        return boxes.new_zeros(height, width)
    rows = _touched(boxes[:, 1::2], frame.padded[0], height)
    columns = _touched(boxes[:, 0::2], frame.padded[1], width)
    area = rows.sum(dim=1) * columns.sum(dim=1)
    return (rows[:, :, None] * columns[:, None, :] / area[:, None, None]).amax(dim=0)


def _touched(ends: Tensor, pixels: int, cells: int) -> Tensor:
    """(M, 2), first and last pixel of M boxes along one side -> (M, cells): 1 where a box lies on a cell, else 0."""
    # The power of two: a coarse grid may end in a part of a cell.
    stride = 1 << (-(-pixels // cells) - 1).bit_length()
    first = (ends[:, :1] / stride).floor().clamp(min=0, max=cells - 1)
    # Boxes without extent have one cell too.
    last = torch.maximum((ends[:, 1:] / stride).ceil() - 1, first)
    index = torch.arange(cells, device=ends.device)
    return ((index >= first) & (index <= last)).to(ends.dtype)


def _attentions(maps: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """A^sp (N, 1, h, w) and A^ch (N, C, 1, 1) of maps (N, C, h, w)."""
    return spatial_attention(maps, temperature)[:, None], channel_attention(maps, temperature)[:, :, None, None]
