"""Scale-aware masked distillation of maps and outputs (DSAMKD: arXiv 2501.07101v1, 2025; v2 renames it SAMKD)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.distillation.parts.attention import channel_attention, spatial_attention, without_top
from msad_cli.distillation.parts.generators import DualGenerator, generation_loss, published
from msad_cli.distillation.parts.levels import Levels, distinct_levels
from msad_cli.models.detectors.base import Target
from msad_cli.models.spec import DetectorSpec
from msad_cli.models.whole_batch import batch_divisor

SCALES = (1, 2, 4)
"""p: sides, in cells, of the patches that are max-pooled."""
HIDDEN = 0.5
"""ρ: the share of cells, and of channels, that is hidden."""
DELTA = 1.0
"""δ: the weight of the part of outputs."""
LARGEST = 5.0
"""The weight of a cell is cut off here, the mean being 1."""


class DSAMKD(nn.Module):
    """Maps generated at three scales, and the outputs of the cells where student and teacher differ.

    With T_p, S_p the maps max-pooled over p×p cells, W_p = A^sp(T_p) and R_p what a DMKD generator makes of S_p without
    the cells and the channels that T_p attends to most:

        features = α·Σ_levels mean_p p²·Σ W_p·(R_p − T_p)² / N              generators for each p, for all levels

    With x (N, A, K) the class logits, D = max over classes of |σ(x^S) − σ(x^T)| of the cell, w = max of σ(x^T):

        classes = δ·Σ W·BCE(σ(x^S), σ(x^T)) / max(1, Σ w)                  W = min(5, D / mean D), 0 below the median
        boxes = δ·Σ w·(1 − GIoU(b^S, b^T)) / max(1, Σ w)

    mean and median are those of the image. Two-stage detectors have the feature part alone, as their heads do not
    predict cell by cell, and so have students of another detector than their teacher's; a student that is not aligned
    has no boxes that could be compared.

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
        return losses | _output_losses(student, teacher) if self.compares_outputs else losses


def _pooled_loss(generate: nn.Module, mine: Tensor, theirs: Tensor, scale: int) -> Tensor:
    """One scale of one level: Σ W_p·(R_p − T_p)² / N."""
    mine, theirs = (F.max_pool2d(each, scale, ceil_mode=True) for each in (mine, theirs))
    # Its mean is 1 by its definition: nothing is left to normalise.
    attention = spatial_attention(theirs)
    cells, channels = without_top(attention, HIDDEN), without_top(channel_attention(theirs), HIDDEN)
    return generation_loss(generate(mine, cells, channels), theirs, attention[:, None])


def _output_losses(student: Knowledge, teacher: Knowledge) -> dict[str, Tensor]:
    mine, theirs = student.outputs, teacher.outputs
    wanted = theirs["cls_logits"].sigmoid()
    score = wanted.amax(dim=2)
    # It stands for the number of positive cells, which a teacher's outputs do not tell.
    cells = batch_divisor(score.sum())
    cross = F.binary_cross_entropy_with_logits(mine["cls_logits"], wanted, reduction="none").sum(dim=2)
    weight = difference_weight(mine["cls_logits"].detach().sigmoid(), wanted)
    losses = {"classes": DELTA * (weight * cross).sum() / cells}
    if "bbox_regression" in theirs:
        my_boxes = student.detector.boxes(student.pyramid, student.frame, mine)
        their_boxes = teacher.detector.boxes(teacher.pyramid, teacher.frame, theirs)
        # GIoU divides by areas; next to a box without any, its gradient has no bound.
        solid = (their_boxes[..., 2:] - their_boxes[..., :2]).amin(dim=2) >= 1.0
        distance = generalized_box_iou_loss(my_boxes, their_boxes)
        losses["boxes"] = DELTA * (score * solid * distance).sum() / cells
    return losses


def difference_weight(student: Tensor, teacher: Tensor) -> Tensor:
    """Each cell's weight (N, A) from probabilities (N, A, K): how far both are apart, 0 in the lower half of an image.

    0 everywhere for equal outputs.
    """
    apart = (student - teacher).abs().amax(dim=2)
    mean = apart.mean(dim=1, keepdim=True).clamp(min=torch.finfo(apart.dtype).tiny)
    kept = apart >= apart.median(dim=1, keepdim=True).values
    return kept * (apart / mean).clamp(max=LARGEST)
