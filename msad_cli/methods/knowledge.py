"""What a distiller may look at of one network: its pyramid, and its head's answers if it asks for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from msad_cli.models.detector import Detector
from msad_cli.models.on_features import Target
from msad_cli.structures.frame import Frame


@dataclass(frozen=True)
class Knowledge:
    """One network on one batch.

    Attributes:
        pyramid: five maps (N, C, h, w), finest first; the teacher's fused one, the student's aligned to it.
        frame: the HR frame of the batch.
    """

    detector: Detector
    pyramid: Sequence[Tensor]
    frame: Frame

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        """The head's raw answers, (N, anchors, …) each; computed once, at the first call, for dense detectors."""
        return self.detector.outputs(self.pyramid)

    def losses(self, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Named detection losses against targets in HR pixels."""
        outputs = self.outputs if self.detector.spec.dense else None
        return self.detector.losses(self.pyramid, self.frame, targets, outputs)
