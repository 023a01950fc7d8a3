"""Distillation of a teacher into a student (MSAD, section 3.3)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from msad_cli.distillation.knowledge import Knowledge, best_view, student_view
from msad_cli.distillation.unaligned import unaligned_teacher
from msad_cli.models.detector import Detector, Views
from msad_cli.models.detectors.base import Target
from msad_cli.models.spec import View

Teach = Callable[[Views, Sequence[Target]], Knowledge]
"""From the views and targets (in HR pixels) of a batch to a teacher's knowledge of it."""

DetectionLosses = Callable[[Knowledge, Sequence[Target]], Mapping[str, Tensor]]
"""From what a student knows and the targets in its frame to named detection losses."""

GAMMA = 0.2
TAU = 3.0
WARMUP_STEPS = 500


@dataclass(frozen=True)
class Weighted:
    """A distiller and the weight of its losses.

    From (student, teacher: Knowledge, targets in their frame) it makes named losses, and owns what it trains.
    """

    distiller: nn.Module
    weight: float


class Distillation(nn.Module):
    """L_S = L_det + warm-up · Σ_d weight_d · L_d, with L_det at weight 1 as in the official code.

    The paper's only distiller is the L1 of the pyramids, of weight γ·τ. Without any, this is the plain student: the
    baseline on the same schedule.

    Args:
        student: of one view, or of several whose fusion predicts (table 7); any k that the teacher aligns, 1 included.
            One that is not aligned learns from maps that are brought to its coarser grid.
        teach: what the teacher knows of a batch, on the student's grid; see `teaching`. Called without gradients.
        distillers: by name; what they train (adapters) belongs to them and is no part of the student.
        warmup_steps: steps over which the distillers' weight rises linearly to its full value.
        detection: L_det; of batches with unlabelled images a `LabelledPart`.
        detection_weight: of L_det; at 0 a student learns from its teacher alone, as in long schedules of Beyer et al.
            ("Knowledge distillation: a good teacher is patient and consistent", CVPR 2022).
    """

    steps_done: Tensor

    def __init__(
        self,
        student: Detector,
        teach: Teach | None,
        distillers: Mapping[str, Weighted],
        warmup_steps: int = WARMUP_STEPS,
        detection: DetectionLosses = Knowledge.losses,
        detection_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.student = student
        self._teach = teach
        self._detection = detection
        self.detection_weight = detection_weight
        self.distillers = nn.ModuleDict({name: each.distiller for name, each in distillers.items()})
        self.weights = {name: each.weight for name, each in distillers.items()}
        self.warmup_steps = warmup_steps
        # A buffer, so that a resumed run goes on where the warm-up stood.
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

    def forward(self, views: Views, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Losses named `student/…` and `distil/METHOD/…`, ready to be summed; targets in HR pixels."""
        student, own = student_view(self.student, views, targets)
        losses = {
            f"student/{name}": self.detection_weight * loss for name, loss in self._detection(student, own).items()
        }
        if self._teach is None:
            return losses
        with torch.no_grad():
            teacher = self._teach(views, targets)
        student = student.where(teacher.inside)
        self.steps_done += 1
        warmup = (self.steps_done / max(1, self.warmup_steps)).clamp(max=1.0)
        for name, distiller in self.distillers.items():
            for part, loss in distiller(student, teacher, own).items():
                losses[f"distil/{name}/{part}"] = self.weights[name] * warmup * loss
        return losses


def teaching(teacher: Detector, student: Detector, view: View | None = None) -> Teach:
    """How a teacher teaches this student: aligned, or brought to the coarser grid of one that is not.

    Its fused pyramid is imitated, or that of the large image if it has no fusion, or that of a view that is named. The
    teacher stays in eval mode without gradients, where the official code leaves it in training mode; no submodule of
    what trains its student.
    """
    teacher.eval().requires_grad_(False)
    if student.spec.scales == "aligned":
        return lambda views, _: best_view(teacher, views, view=view)
    coarser = unaligned_teacher(teacher, student.spec.ks[-1], view)
    return lambda views, _: coarser(views)
