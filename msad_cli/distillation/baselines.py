"""The paper's baselines: a stock detector trained on several base resolutions (vanilla), or on one (single)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msad_cli.models.detector import Detector, Views
from msad_cli.models.detectors.base import Target


class UnshiftedTraining(nn.Module):
    """Every view is an ordinary image with P3–P7 and a frame of its own; the losses of all views are summed."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, views: Views, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Losses named `k1/…`, `k2/…`, ready to be summed; targets in the HR frame."""
        losses = {}
        for k in self.detector.spec.ks:
            frame = self.detector.frame(views[k], 1)
            small = [downsampled_target(target, k) for target in targets]
            for name, loss in self.detector.losses(self.detector.pyramid(views[k], 1), frame, small).items():
                losses[f"k{k}/{name}"] = loss
        return losses


def downsampled_target(target: Target, k: int) -> Target:
    """A target in the frame of the image downsampled by k."""
    if k == 1:
        return target
    small = dict(target)
    if "boxes" in target:
        small["boxes"] = target["boxes"] / k
    if "masks" in target:
        # A pixel belongs to an object that covers half of it.
        small["masks"] = (F.avg_pool2d(target["masks"][:, None].float(), k)[:, 0] >= 0.5).to(torch.uint8)
    if "keypoints" in target:
        small["keypoints"] = target["keypoints"] / target["keypoints"].new_tensor([k, k, 1])
    return small
