"""Detection losses of batches in which some images have no labels: of those, not even the background is known."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.models.detectors.base import Target
from msad_cli.models.whole_batch import share_times


@dataclass(frozen=True)
class LabelledPart:
    """The losses of a batch's labelled images, as of a batch that has no others.

    The loop weighs losses by this process's share of the batch's images, or that of the part that fits into memory.
    So they are multiplied by what share of the labelled images it has, for each of all images: by 1 for whole batches.

    Attributes:
        share: of a whole batch's images that have labels.
    """

    share: float

    def __call__(self, student: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Named losses; an unlabelled image's target has no `labels`. All are 0 where there is no labelled one."""
        labelled = [place for place, target in enumerate(targets) if "labels" in target]
        factor = len(labelled) / len(targets) / self.share
        # Several processes, and parts of a batch, have to have the same losses: without a labelled image, an
        # unlabelled one stands in, and counts for nothing.
        own = [targets[place] for place in labelled] or [_nothing(student)]
        with share_times(factor):
            losses = student.of(labelled or [0]).losses(own)
        return {name: factor * loss for name, loss in losses.items()}


def _nothing(student: Knowledge) -> Target:
    """The target of an image without objects, whatever the task."""
    spec, of = student.detector.spec, student.pyramid[0].new_zeros
    nothing = {"boxes": of(0, 4), "labels": of(0, dtype=torch.int64)}
    height, width = student.frame.image_sizes[0]
    return nothing | {
        "masks": of(0, height, width, dtype=torch.uint8),
        "keypoints": of(0, len(spec.keypoints), 3),
    }
