"""How much a fusion takes of each view, level by level."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.annotations.split import CocoSplit
from msad_cli.data.loading.dataset import EvaluationSet, evaluation_loader
from msad_cli.models.detector import Detector
from msad_cli.models.fusion import CrossFusion
from msad_cli.system.device import Compute, to_device


def weighs(detector: Detector) -> bool:
    """Whether it has a fusion that weighs its views; sums and concatenations do not."""
    return isinstance(detector.fusion, CrossFusion)


def fusion_weights(
    detector: Detector, split: CocoSplit, compute: Compute, wanted: Sequence[int] | None = None
) -> NDArray[np.float64]:
    """(I, levels, views) the weights on each image; those of channels as their mean.

    Args:
        detector: one that `weighs`, on the device of `compute`.
        wanted: the places of some images in the split; None for all. Unreadable ones have no row.
    """
    spec = detector.spec
    assert isinstance(detector.fusion, CrossFusion)
    detector.eval()
    found = []
    images = EvaluationSet(split, spec.resolution, spec.ks, phase=spec.phase)
    for batch in evaluation_loader(images, 1, 0, wanted=wanted):
        if not batch.samples:
            continue
        views, _ = to_device(batch.views, batch.targets, compute.device)
        with compute.inference():
            pyramids = [detector.pyramid(views[k], k) for k in spec.ks]
            levels = [detector.fusion.weights(list(maps)) for maps in zip(*pyramids, strict=True)]
        found.append([each.reshape(1, len(spec.ks), -1).mean(dim=2)[0].tolist() for each in levels])
    return np.array(found).reshape(-1, len(spec.levels), len(spec.ks))
