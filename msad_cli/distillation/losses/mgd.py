"""Masked generative distillation (MGD: Yang et al., ECCV 2022)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.distillation.parts.generators import generation_loss, generator, published
from msad_cli.distillation.parts.levels import Levels, distinct_levels
from msad_cli.models.detectors.base import Target
from msad_cli.models.spec import DetectorSpec


class MGD(nn.Module):
    """α·Σ_levels Σ (G(F^S ⊙ M) − F^T)² / N: the teacher's map is generated from a student's with random holes.

    M (N, 1, h, w) hides each cell with probability λ, all its channels at once; every level has a generator G of its
    own. α = 2e-5 and λ = 0.65 for dense detectors, 5e-7 and 0.45 for those of two stages. As in the official code.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec) -> None:
        super().__init__()
        self.levels = Levels(student, teacher, distinct_levels(student))
        self.generators = nn.ModuleList(generator(teacher.channels) for _ in range(len(self.levels)))
        self.alpha, self.hidden = published(student)

    def forward(self, student: Knowledge, teacher: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The distance of what is generated from the teacher's pyramid."""
        losses = [
            generation_loss(generate(mine * random_mask(mine, self.hidden)), theirs)
            for generate, (mine, theirs) in zip(self.generators, self.levels(student, teacher), strict=True)
        ]
        return {"generation": self.alpha * torch.stack(losses).sum()}


def random_mask(maps: Tensor, hidden: float) -> Tensor:
    """(N, 1, h, w) for maps (N, C, h, w): 0 with probability `hidden`, else 1; drawn from torch's global generator."""
    return (torch.rand_like(maps[:, :1]) >= hidden).to(maps.dtype)
