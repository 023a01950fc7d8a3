"""Torchvision's two-stage detectors, Mask R-CNN and Keypoint R-CNN, run on given features instead of on images.

`rpn` and `roi_heads` read of the image list only what dense detectors read, the padded shape and the image sizes; so
the HR frame is handed to them, whichever view the features come from.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor
from torchvision.models.detection import FasterRCNN

from msad_cli.frame import Frame
from msad_cli.models.detectors.dense import Detection, Target, finite, image_list


def region_losses(
    detector: FasterRCNN, pyramid: Sequence[Tensor], frame: Frame, targets: Sequence[Target]
) -> dict[str, Tensor]:
    """The detector's named losses on a pyramid: what its own forward gives on images with these features.

    Which anchors and proposals are compared with the targets is drawn at random.

    Args:
        pyramid: five maps (N, C, h, w), finest first; proposals come from all of them, regions from the first four.
        frame: the frame that the boxes, masks and keypoints of the N targets live in.
    """
    features = named_maps(pyramid)
    with _in_training(detector, True):
        proposals, losses = detector.rpn(image_list(frame), features, list(targets))
        _, more = detector.roi_heads(features, proposals, list(frame.image_sizes), list(targets))
    return {**more, **losses}


def region_proposals(detector: FasterRCNN, pyramid: Sequence[Tensor], frame: Frame) -> list[Tensor]:
    """Where on a pyramid the detector looks: boxes (P, 4) of each image in HR pixels, the most likely first."""
    with _in_training(detector, False):
        proposals: list[Tensor] = detector.rpn(image_list(frame), named_maps(pyramid))[0]
    return proposals


def region_detections(detector: FasterRCNN, pyramid: Sequence[Tensor], frame: Frame) -> list[Detection]:
    """The detector's detections on a pyramid, in HR pixels and clipped to the image, one dict an image."""
    proposals = region_proposals(detector, pyramid, frame)
    with _in_training(detector, False):
        detections, _ = detector.roi_heads(named_maps(pyramid), proposals, list(frame.image_sizes))
    return [finite(each) for each in detections]


def named_maps(pyramid: Sequence[Tensor]) -> dict[str, Tensor]:
    """The maps under the names that torchvision's proposals and regions know them by, as float32."""
    # Anchors, proposals and regions get the maps' type, and boxes of a thousand pixels need float32. Under autocast the
    # heads' convolutions go back to half precision by themselves.
    return {str(i): each.float() for i, each in enumerate(pyramid)}


@contextmanager
def _in_training(detector: FasterRCNN, training: bool) -> Iterator[None]:
    """Both stages answer losses or detections by their mode, which is not for a frozen model's caller to know."""
    stages = (detector.rpn, detector.roi_heads)
    before = [stage.training for stage in stages]
    try:
        for stage in stages:
            stage.training = training
        yield
    finally:
        for stage, mode in zip(stages, before, strict=True):
            stage.training = mode
