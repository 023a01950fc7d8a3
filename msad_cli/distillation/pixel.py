"""Pixel Distillation's second stage (TPAMI 2024): from an assistant that sees the large image to its small twin.

Teacher → assistant → student (TAS): a large network on large images teaches the assistant, a small one on large images
(an ordinary distillation of a student at k = 1); the assistant teaches the same small network on small images. Aligned
feature preservation (AFP) gives the assistant the student's grid and anchors first. Of TAS and AFP no code was
published: that the assistant's grid and anchors are altered is certain, how is our reconstruction.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from msad_cli.distillation.baselines import downsampled_target
from msad_cli.distillation.distillation import WARMUP_STEPS, Distillation, Weighted
from msad_cli.distillation.knowledge import Knowledge, best_view
from msad_cli.distillation.parts.coarser import coarser
from msad_cli.distillation.parts.steps import StepCounter
from msad_cli.frame import FRAME_DIVISOR, level_shift
from msad_cli.models.detector import Detector, Views
from msad_cli.models.detectors.base import Target
from msad_cli.models.pyramid import subsampled_top

AFP = Literal["shift", "resize"]
TUNE_SHARE = 0.25
"""Of the student's schedule: how long the altered assistant is tuned before it teaches."""


class AlteredAssistant(nn.Module):
    """An assistant that looks at the large image and predicts on the grid, and in the frame, of the small one.

    `shift` leaves out the m = log2 k finest levels and adds m coarser ones, made from the last as P7 is made from
    P6 (as P6 of P2–P6, by leaving out every second cell): levels P(3+m)…P(7+m) of the large image. `resize` takes a
    weighted mean around every k-th cell of each level. In the frame of the small image the anchors are then the
    student's own, k times as large as before in HR pixels, so that maps, scores and boxes match one to one.
    """

    def __init__(self, detector: Detector, k: int, afp: AFP) -> None:
        super().__init__()
        self.detector, self.k, self.afp = detector, k, afp
        left_out = level_shift(k) if afp == "shift" else 0
        added = 0 if subsampled_top(detector.spec.finest_level) else left_out
        for block in detector.backbone(1).outputs_below(left_out):
            # A parameter without a gradient would stall distributed training.
            block.requires_grad_(False)
        channels = detector.spec.channels
        self.coarser = nn.ModuleList(nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(added))
        for conv in self.coarser:
            nn.init.kaiming_uniform_(conv.weight, a=1)  # type: ignore[arg-type]
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, views: Views) -> Knowledge:
        """What it knows of a batch, in the frame of the small image."""
        whole = best_view(self.detector, views, FRAME_DIVISOR * self.k)
        if self.afp == "resize":
            pyramid = [coarser(each, self.k) for each in whole.pyramid]
        else:
            shift = level_shift(self.k)
            pyramid = list(whole.pyramid[shift:])
            for index in range(shift):
                last = pyramid[-1]
                pyramid.append(self.coarser[index](F.relu(last)) if self.coarser else last[..., ::2, ::2])
        return Knowledge(self.detector, pyramid, self.detector.frame(views[self.k], 1, FRAME_DIVISOR), views)


class PixelDistillation(StepCounter):
    """First the altered assistant is tuned on the detection loss; then, frozen, it teaches the student.

    Args:
        student: not aligned: an ordinary network that sees the image downsampled by k.
        assistant: the same network, trained on the large image. Altered and tuned, it belongs to the resume state.
        distillers: of the second part, ISRD among them.
        warmup_steps: as in `Distillation`, from the second part's beginning.
        tune_steps: how long the first part is.
    """

    def __init__(
        self,
        student: Detector,
        assistant: Detector,
        afp: AFP,
        distillers: Mapping[str, Weighted],
        tune_steps: int,
        warmup_steps: int = WARMUP_STEPS,
    ) -> None:
        super().__init__()
        self.k = student.spec.ks[-1]
        self.assistant = AlteredAssistant(assistant, self.k, afp)
        # Its method alone: the assistant is registered once, here.
        self.distillation = Distillation(student, lambda views, _: self.assistant(views), distillers, warmup_steps)
        self.tune_steps = tune_steps

    def forward(self, views: Views, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Losses named `assistant/…`, later `student/…` and `distil/…`, ready to be summed; targets in HR pixels."""
        self.count_step()
        if self.passed(self.tune_steps):
            self.assistant.eval().requires_grad_(False)
            losses: dict[str, Tensor] = self.distillation(views, targets)
            return losses
        own = [downsampled_target(target, self.k) for target in targets]
        return {f"assistant/{name}": loss for name, loss in self.assistant(views).losses(own).items()}
