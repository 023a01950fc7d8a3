"""Distillation of a fused multi-scale teacher into a student that sees one reduced view (MSAD, section 3.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from msad_cli.methods.distillers.feature_l1 import feature_l1
from msad_cli.models.detector import Detector, Views
from msad_cli.models.on_features import Target

GAMMA = 0.2
TAU = 3.0
WARMUP_STEPS = 500


class Distillation(nn.Module):
    """L_S = L_det + γ·τ·warm-up·Σ_levels mean|P^T − P^S|, with L_det at weight 1 as in the official code.

    Without a teacher this is the plain student: the baseline on the same schedule.

    Args:
        student: sees the view reduced `student.spec.ks[0]` times.
        teacher: sees all of its own views; its fused pyramid is imitated. It stays in eval mode without gradients,
            where the official code leaves it in training mode.
        gamma, tau: γ and τ; only their product matters with this reduction.
        warmup_steps: steps over which the distillation's weight rises linearly to its full value.
    """

    steps_done: Tensor

    def __init__(
        self,
        student: Detector,
        teacher: Detector | None,
        gamma: float = GAMMA,
        tau: float = TAU,
        warmup_steps: int = WARMUP_STEPS,
    ) -> None:
        super().__init__()
        self.student = student
        # In a plain list, the teacher is no submodule: it is neither trained, nor saved, nor put into train mode.
        self._teacher = [teacher.eval().requires_grad_(False)] if teacher is not None else []
        self.weight = gamma * tau
        self.warmup_steps = warmup_steps
        # A buffer, so that a resumed run goes on where the warm-up stood.
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

    def forward(self, views: Views, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Losses named `student/…` and `distil/l1`, ready to be summed; boxes of the targets in HR pixels."""
        k = self.student.spec.ks[0]
        frame = self.student.frame(views[k], k)
        pyramid = self.student.pyramid(views[k], k)
        losses = {f"student/{name}": loss for name, loss in self.student.losses(pyramid, frame, targets).items()}
        for teacher in self._teacher:
            self.steps_done += 1
            warmup = (self.steps_done / max(1, self.warmup_steps)).clamp(max=1.0)
            losses["distil/l1"] = self.weight * warmup * feature_l1(pyramid, self._knowledge(teacher, views))
        return losses

    @torch.no_grad()
    def _knowledge(self, teacher: Detector, views: Views) -> list[Tensor]:
        return teacher.fuse([teacher.pyramid(views[k], k) for k in teacher.spec.ks])
