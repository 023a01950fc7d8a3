"""Distillation of frequencies under learned prompts (Zhang et al., "FreeKD", CVPR 2024)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.distillation.parts.haar import haar, inverse_haar
from msad_cli.distillation.parts.levels import Levels, by_level
from msad_cli.distillation.parts.steps import StepCounter
from msad_cli.models.detectors.base import Target
from msad_cli.models.spec import DetectorSpec

SCALES = 3
TOKENS = 6
PROMPT_STEPS = 200
"""So many steps the prompts are learnt on the teacher, before they are frozen and weigh the student's frequencies."""

FEATURES = 5.0
"""Weight of the maps' squared distance; the frequencies and the box regression have 1."""


class FreeKD(StepCounter):
    """Distance of the high frequencies of maps (N, C, h, w), where the teacher's are found to matter.

    A Haar transform gives each map a low band and, at 3 scales, three high ones. Each level has 6 prompts (C,) for the
    low band and for each scale; prompt p of scale j marks cells by the mask m = σ(p · sum of the teacher's high bands):

        bands    = Σ over levels and scales of mean m·|high^S − high^T|
        features = 5 · Σ over levels of MSE(S, T),    boxes = Σ over levels of mean SmoothL1 of dense box regression

    In the first 200 steps the prompts learn instead: the teacher detects on maps rebuilt from masked bands, and the
    prompts of one band are to mark different cells. The teacher does not change. Then the prompts stand still, as a
    copy that neither momentum nor weight decay reaches, and no gradient passes them.

    Reconstruction. Certain from the official code: transform, prompts, masks (one a scale, of the sum over its three
    bands), L1, the weights 1, 5 and 1 of RetinaNet, low band left to the prompts' learning. Ours: that the prompts are
    learnt within the same run, for 200 steps; that rebuilt bands are weighted by twice the mean mask, where the code
    adds the masks up and begins with maps three times too strong; the mean in the dice loss; that equal channels are
    compared as they are, where the code always has a 1×1 convolution a level.
    """

    frozen: Tensor

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec) -> None:
        super().__init__()
        self.levels = Levels(student, teacher)
        self.compares_boxes = student.detector == teacher.detector
        # Of each level: the low band's prompts, then those of each scale, finest first.
        self.prompts = nn.Parameter(0.01 * torch.randn(len(self.levels), 1 + SCALES, TOKENS, teacher.channels))
        # A buffer, so that a resumed run goes on with the prompts that it had.
        self.register_buffer("frozen", torch.zeros_like(self.prompts))

    def forward(self, student: Knowledge, teacher: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The distances of a student's pyramid and boxes from a teacher's; at first, the prompts' own losses."""
        pairs = self.levels(student, teacher)
        squares = [F.mse_loss(mine, theirs) for mine, theirs in pairs]
        losses = {"features": FEATURES * torch.stack(squares).sum()}
        if self.compares_boxes and "bbox_regression" in teacher.outputs:
            both = (by_level(each.outputs["bbox_regression"], each.pyramid) for each in (student, teacher))
            boxes = [F.smooth_l1_loss(mine, theirs) for mine, theirs in zip(*both, strict=True)]
            losses["boxes"] = torch.stack(boxes).sum()
        self.count_step()
        if not self.passed(PROMPT_STEPS):
            return losses | self._prompt_losses(teacher, targets)
        if not self.passed(PROMPT_STEPS + 1):
            self.frozen.copy_(self.prompts.detach())
        # A parameter without a gradient would stall distributed training.
        losses["bands"] = self._band_distance(pairs) + 0 * self.prompts.sum()
        return losses

    def _band_distance(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        distances = []
        for prompts, (s, t) in zip(self.frozen, pairs, strict=True):
            (_, mine), (_, theirs) = haar(s, SCALES), haar(t, SCALES)
            for tokens, high_s, high_t in zip(prompts[1:], mine, theirs, strict=True):
                # The mean of the masked distances over prompts is that of the masks, which are positive.
                weight = band_masks(high_t.sum(dim=2), tokens).mean(dim=1)[:, None, None]
                distances.append((weight * (high_s - high_t).abs()).mean())
        return torch.stack(distances).sum()

    def _prompt_losses(self, teacher: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """What the prompts are to make small; gradients reach nothing else."""
        rebuilt, likenesses = [], []
        for prompts, maps in zip(self.prompts, teacher.pyramid, strict=True):
            low, highs = haar(maps.detach().float(), SCALES)
            masks = [band_masks(low, prompts[0])]
            masks += [band_masks(high.sum(dim=2), each) for high, each in zip(highs, prompts[1:], strict=True)]
            likenesses += [dice(each) for each in masks]
            # Masks begin at a half, and rebuilt maps so at the teacher's own.
            weights = [2 * each.mean(dim=1)[:, None] for each in masks]
            weighted = [high * weight[:, :, None] for high, weight in zip(highs, weights[1:], strict=True)]
            whole = inverse_haar(low * weights[0], weighted)
            rebuilt.append(whole[..., : maps.shape[-2], : maps.shape[-1]])
        losses = teacher.detector.losses(rebuilt, teacher.frame, targets)
        return {
            "prompt_detection": torch.stack(list(losses.values())).sum(),
            "prompt_likeness": torch.stack(likenesses).mean(),
        }


def band_masks(band: Tensor, prompts: Tensor) -> Tensor:
    """A band (N, C, h, w) and prompts (P, C) -> masks (N, P, h, w) from 0 to 1."""
    with torch.autocast(band.device.type, enabled=False):
        return torch.einsum("pc,nchw->nphw", prompts, band).sigmoid()


def dice(masks: Tensor) -> Tensor:
    """How alike the masks (N, P, h, w) of an image are, two by two: 1 for equal ones, 0 for those that never meet."""
    flat = masks.flatten(2)
    with torch.autocast(masks.device.type, enabled=False):
        products = flat @ flat.mT
    squares = products.diagonal(dim1=1, dim2=2)
    pairs = 2 * products / (squares[:, :, None] + squares[:, None, :] + 1e-12)
    others = ~torch.eye(masks.shape[1], dtype=torch.bool, device=masks.device)
    return pairs[:, others].mean()
