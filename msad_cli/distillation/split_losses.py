"""A detector's losses on a split, of the same forward pass that finds what AP is measured by."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from msad_cli.data.loading.dataset import Batch
from msad_cli.distillation.baselines import downsampled_target
from msad_cli.models.detector import Detector
from msad_cli.models.detectors.base import Detection
from msad_cli.models.spec import View
from msad_cli.system.distributed import gather


class SplitLosses:
    """Adds up the detection losses of one view of a detector, as in training but without augmentation.

    What a two-stage detector draws at random is drawn from a seed of its own: an evaluation leaves the generators of a
    training as they are.
    """

    def __init__(self, detector: Detector, view: View) -> None:
        self.detector = detector
        self.view = view
        self.sum, self.images = 0.0, 0
        self._targets: list[dict[str, Tensor]] = []

    def following(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, each of which is detected in before the next one."""
        for batch in batches:
            self._targets = batch.targets
            yield batch

    def detect(self, views: Mapping[int, Sequence[Tensor]]) -> Sequence[Detection]:
        """As `Detector.detect`, for the batch that was handed on last."""
        seen = self.detector.look(views, self.view)
        device = seen.pyramid[0].device
        targets = [{name: each.to(device) for name, each in target.items()} for target in self._targets]
        small = [downsampled_target(target, seen.scale) for target in targets]
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            losses = self.detector.losses(seen.pyramid, seen.frame, small, seen.outputs)
        self.sum += len(targets) * float(torch.stack([each.float() for each in losses.values()]).sum())
        self.images += len(targets)
        return self.detector.finish(seen)

    def mean(self) -> float:
        """Of an image, over what all processes have looked at; NaN where that is none."""
        shares = gather((self.sum, self.images))
        images = sum(count for _, count in shares)
        return sum(share for share, _ in shares) / images if images else float("nan")
