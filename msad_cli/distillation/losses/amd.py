"""Adaptive masked distillation (AMD: Yang et al., IJCNN 2023)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.distillation.parts.attention import spatial_attention, without_top
from msad_cli.distillation.parts.generators import generation_loss, generator, published
from msad_cli.distillation.parts.levels import Levels, distinct_levels
from msad_cli.models.detectors.base import Target
from msad_cli.models.spec import DetectorSpec

REDUCTION = 16
"""By how much the squeeze narrows the channels; the value of the paper that introduced it (Hu et al., 2018)."""


class AMD(nn.Module):
    """α·Σ_levels Σ (SE(G(F^S ⊙ M)) − F^T)² / N, where M hides the cells that the teacher attends to most.

    A reconstruction. Certain, from the abstract: an attention-guided spatial mask takes the place of MGD's random one,
    and a channel module of the squeeze-and-excitation kind helps the student. Ours: that the mask hides the strongest
    share λ of the teacher's cells, where SE stands, its reduction, and MGD's α and λ. Every level has its own G and SE.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec) -> None:
        super().__init__()
        self.levels = Levels(student, teacher, distinct_levels(student))
        channels = teacher.channels
        self.generators = nn.ModuleList(
            nn.Sequential(generator(channels), SqueezeExcitation(channels, max(1, channels // REDUCTION)))
            for _ in range(len(self.levels))
        )
        self.alpha, self.hidden = published(student)

    def forward(self, student: Knowledge, teacher: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The distance of what is generated from the teacher's pyramid."""
        losses = []
        for generate, (mine, theirs) in zip(self.generators, self.levels(student, teacher), strict=True):
            mask = without_top(spatial_attention(theirs), self.hidden)
            losses.append(generation_loss(generate(mine * mask[:, None]), theirs))
        return {"generation": self.alpha * torch.stack(losses).sum()}
