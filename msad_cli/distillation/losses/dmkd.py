"""Dual masking (DMKD: Yang et al., ICASSP 2024)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.distillation.parts.attention import channel_attention, spatial_attention, without_top
from msad_cli.distillation.parts.generators import DualGenerator, generation_loss, published
from msad_cli.distillation.parts.levels import Levels, distinct_levels
from msad_cli.models.detectors.base import Target
from msad_cli.models.spec import DetectorSpec

HIDDEN_CELLS, HIDDEN_CHANNELS = 0.65, 0.5


class DMKD(nn.Module):
    """α·Σ_levels Σ (w1·G_sp(F^S ⊙ M_sp) + w2·G_ch(F^S ⊙ M_ch) − F^T)² / N, with w learnt.

    M_sp hides the cells that the teacher attends to most, M_ch the channels.

    A reconstruction. Certain, from the abstract: spatial and channel masks led by the teacher's attention, a generator
    behind each, and a weighting of the two that adjusts itself. Ours: the shares that are hidden, 0.65 of the cells and
    0.5 of the channels; w as the softmax of two numbers; generators and w for each level; and α, which is MGD's.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec) -> None:
        super().__init__()
        self.levels = Levels(student, teacher, distinct_levels(student))
        self.generators = nn.ModuleList(DualGenerator(teacher.channels) for _ in range(len(self.levels)))
        self.alpha = published(student).alpha

    def forward(self, student: Knowledge, teacher: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The distance of what is generated from the teacher's pyramid."""
        losses = []
        for generate, (mine, theirs) in zip(self.generators, self.levels(student, teacher), strict=True):
            cells = without_top(spatial_attention(theirs), HIDDEN_CELLS)
            channels = without_top(channel_attention(theirs), HIDDEN_CHANNELS)
            losses.append(generation_loss(generate(mine, cells[:, None], channels[:, :, None, None]), theirs))
        return {"generation": self.alpha * torch.stack(losses).sum()}
