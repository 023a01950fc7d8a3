"""Distillation of a fused multi-scale teacher into a student (MSAD, section 3.3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from msad_cli.methods.knowledge import Knowledge
from msad_cli.models.detector import Detector, Views
from msad_cli.models.on_features import Target

GAMMA = 0.2
TAU = 3.0
WARMUP_STEPS = 500


@dataclass(frozen=True)
class Weighted:
    """A distiller, which answers (student, teacher: Knowledge) with a number, and the weight of that number."""

    distiller: nn.Module
    weight: float


class Distillation(nn.Module):
    """L_S = L_det + warm-up · Σ_d weight_d · L_d, with L_det at weight 1 as in the official code.

    The paper's only distiller is the L1 of the pyramids, of weight γ·τ. Without any, this is the plain student: the
    baseline on the same schedule.

    Args:
        student: of one view, or of several whose fusion answers (table 7); any k that the teacher aligns, 1 included.
        teacher: sees all of its own views; its fused pyramid is imitated. It stays in eval mode without gradients,
            where the official code leaves it in training mode.
        distillers: by name; what they train (adapters) belongs to them and is no part of the student.
        warmup_steps: steps over which the distillers' weight rises linearly to its full value.
    """

    steps_done: Tensor

    def __init__(
        self,
        student: Detector,
        teacher: Detector | None,
        distillers: Mapping[str, Weighted],
        warmup_steps: int = WARMUP_STEPS,
    ) -> None:
        super().__init__()
        self.student = student
        # In a plain list, the teacher is no submodule: it is neither trained, nor saved, nor put into train mode.
        self._teacher = [teacher.eval().requires_grad_(False)] if teacher is not None else []
        self.distillers = nn.ModuleDict({name: each.distiller for name, each in distillers.items()})
        self.weights = {name: each.weight for name, each in distillers.items()}
        self.warmup_steps = warmup_steps
        # A buffer, so that a resumed run goes on where the warm-up stood.
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

    def forward(self, views: Views, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Losses named `student/…` and `distil/…`, ready to be summed; boxes of the targets in HR pixels."""
        student = _knowledge(self.student, views)
        losses = {f"student/{name}": loss for name, loss in student.losses(targets).items()}
        for model in self._teacher:
            with torch.no_grad():
                teacher = _knowledge(model, views)
            self.steps_done += 1
            warmup = (self.steps_done / max(1, self.warmup_steps)).clamp(max=1.0)
            for name, distiller in self.distillers.items():
                losses[f"distil/{name}"] = self.weights[name] * warmup * distiller(student, teacher)
        return losses


def _knowledge(detector: Detector, views: Views) -> Knowledge:
    """A network's best view, on the pixels that it needs of a batch."""
    ks = detector.spec.ks
    pyramids = [detector.pyramid(views[k], k) for k in ks]
    pyramid = detector.fuse(pyramids) if detector.spec.fuses else pyramids[0]
    return Knowledge(detector, pyramid, detector.frame(views[ks[0]], ks[0]))
