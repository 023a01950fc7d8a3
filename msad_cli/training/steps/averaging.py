"""Averaged weights: an exponential moving average whose memory grows with the run."""

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from msad_cli.models.detector import Detector

USUAL_DECAY = 0.999
"""It remembers a thousand steps."""


def decay_after(updates: int, most: float) -> float:
    """The decay of an update: at first small, so that the random start is forgotten, and `most` at last.

    The average is over some ninth of the run so far: (1 + n) / (10 + n), as TensorFlow's moving averages have it.

    Args:
        updates: made before.
    """
    return min(most, (1 + updates) / (10 + updates))


def averaged(detector: Detector, most: float, updates: Callable[[], int]) -> AveragedModel:
    """A copy of a detector that follows its weights.

    Args:
        most: the largest decay.
        updates: how many were made so far; the average's own count lies on the device, and reading it would wait.
    """

    def update(average: Sequence[Tensor], current: Sequence[Tensor], _: Tensor | int) -> None:
        get_ema_multi_avg_fn(decay_after(updates(), most))(average, current, 0)

    return AveragedModel(detector, multi_avg_fn=update)
