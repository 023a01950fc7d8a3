"""Stages of backbones that a training leaves as they are."""

from msad_cli.models.detector import Detector

STAGES = 5
"""Of every backbone: the stem, and four that halve the resolution."""


def freeze_stages(detector: Detector, count: int) -> None:
    """Has the first stages of every backbone of a detector learn nothing, from the image on.

    Their batch statistics, where the normalisation has any that are not frozen, still follow the images.
    """
    for backbone in filter(None, (detector.core.backbone, detector.low)):
        for stage in backbone.body.stages()[:count]:
            for module in stage:
                module.requires_grad_(False)
