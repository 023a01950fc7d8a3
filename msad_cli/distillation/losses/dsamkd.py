"""Scale-aware masked distillation of maps and outputs (DSAMKD: arXiv 2501.07101v1, 2025; `samkd` is its v2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.distillation.parts.attention import channel_attention, spatial_attention, without_top
from msad_cli.distillation.parts.differing_outputs import difference_weight, weighted_outputs
from msad_cli.distillation.parts.generators import DualGenerator, generation_loss, published
from msad_cli.distillation.parts.levels import Levels, distinct_levels
from msad_cli.models.detectors.base import Target
from msad_cli.models.spec import DetectorSpec

SCALES = (1, 2, 4)
"""p: sides, in cells, of the patches that are max-pooled."""
HIDDEN = 0.5
"""ρ: the share of cells, and of channels, that is hidden."""


class DSAMKD(nn.Module):
    """Maps generated at three scales, and the outputs of the cells where student and teacher differ.

    With T_p, S_p the maps max-pooled over p×p cells, W_p = A^sp(T_p) and R_p what a DMKD generator makes of S_p without
    the cells and the channels that T_p attends to most:

        features = α·Σ_levels mean_p p²·Σ W_p·(R_p − T_p)² / N              generators for each p, for all levels

    With x (N, A, K) the class logits and D = max over classes of |σ(x^S) − σ(x^T)|, outputs are compared with W =
    min(5, D / mean D), 0 below the median (`weighted_outputs`). Mean and median are those of the image. Two-stage
    detectors have the feature part alone, as their heads do not predict cell by cell. So have students of another
    detector than their teacher's. A student that is not aligned has no boxes that could be compared.

    A reconstruction. Certain, from the abstract: masking at several scales instead of on one whole map, led by the
    teacher's attention, and a masked distillation of outputs guided by their difference. From summaries of the paper:
    max-pooling of both maps, and adaptive weights of the mask. Ours: the formulas and their constants. α is MGD's. The
    scales weigh the same: weights that are learnt would go to the scale that is the easiest.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec) -> None:
        super().__init__()
        self.levels = Levels(student, teacher, distinct_levels(student))
        self.generators = nn.ModuleList(DualGenerator(teacher.channels) for _ in SCALES)
        self.alpha = published(student).alpha
        self.compares_outputs = student.dense and student.detector == teacher.detector

    def forward(self, student: Knowledge, teacher: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The distance of a student's maps, and of its outputs if it is dense, from a teacher's."""
        pairs = self.levels(student, teacher)
        parts = [
            scale**2 / len(SCALES) * _pooled_loss(generate, mine, theirs, scale)
            for scale, generate in zip(SCALES, self.generators, strict=True)
            for mine, theirs in pairs
        ]
        losses = {"features": self.alpha * torch.stack(parts).sum()}
        if self.compares_outputs:
            losses |= weighted_outputs(student, teacher, output_weight(student, teacher))
        return losses


def _pooled_loss(generate: nn.Module, mine: Tensor, theirs: Tensor, scale: int) -> Tensor:
    """One scale of one level: Σ W_p·(R_p − T_p)² / N."""
    mine, theirs = (F.max_pool2d(each, scale, ceil_mode=True) for each in (mine, theirs))
    # Its mean is 1 by its definition: nothing is left to normalise.
    attention = spatial_attention(theirs)
    cells, channels = without_top(attention, HIDDEN), without_top(channel_attention(theirs), HIDDEN)
    return generation_loss(generate(mine, cells[:, None], channels[:, :, None, None]), theirs, attention[:, None])


def output_weight(student: Knowledge, teacher: Knowledge) -> Tensor:
    """Each anchor's weight (N, A): how far the probabilities of its classes are apart."""
    mine, theirs = (each.outputs["cls_logits"].detach().sigmoid() for each in (student, teacher))
    return difference_weight((mine - theirs).abs().amax(dim=2))
