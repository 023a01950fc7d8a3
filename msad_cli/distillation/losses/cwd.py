"""Channel-wise distillation (Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.distillation.parts.levels import Levels
from msad_cli.models.detectors.base import Target
from msad_cli.models.spec import DetectorSpec

TEMPERATURE = 1.0


class CWD(nn.Module):
    """Each channel of a map (N, C, h, w) is a distribution over the cells, φ = softmax of its values / T:

        L = Σ over levels of T²/(C·N) · Σ over channels and images of KL(φ^T ‖ φ^S)

    0 for channels that differ by a shift. It says where a channel is strong, and not how strong. Paper and official
    code, with the code's T for detectors.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec) -> None:
        super().__init__()
        self.levels = Levels(student, teacher)

    def forward(self, student: Knowledge, teacher: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The distance of a student's pyramid from a teacher's."""
        levels = [_divergence(s, t) for s, t in self.levels(student, teacher)]
        return {"pyramid": torch.stack(levels).sum()}


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Of maps (N, C, h, w), the mean over images and channels of KL(teacher ‖ student), times T²."""
    mine, theirs = (F.log_softmax(each.flatten(2) / TEMPERATURE, dim=2) for each in (student, teacher))
    divergence = F.kl_div(mine, theirs, reduction="sum", log_target=True)
    return TEMPERATURE**2 * divergence / (mine.shape[0] * mine.shape[1])
