"""Torchvision's dense detectors, FCOS and RetinaNet, run on given features instead of on images.

After the backbone, torchvision reads its image list only for the padded shape (strides) and the image sizes. Handed the
HR frame, it therefore places anchors, targets and clipping there, whichever view the features come from.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.image_list import ImageList

from msad_cli.frame import Frame

Target = dict[str, Tensor]
"""`boxes` (M, 4) float, corners in HR pixels; `labels` (M,) int64, from 1; as the task has it, `masks` (M, h, w) uint8
of the HR image's size, or `keypoints` (M, K, 3) float, x and y in HR pixels and visibility 0, 1, 2."""
Detection = dict[str, Tensor]
"""`boxes` (D, 4) float, corners in HR pixels; `scores` (D,), descending; `labels` (D,) int64, from 1; as the task has
it, `masks` (D, 1, 28, 28), probabilities on a grid over each box, or `keypoints` (D, K, 3), x and y in HR pixels and 1,
with `keypoints_scores` (D, K), logits."""


def dense_outputs(detector: FCOS | RetinaNet, pyramid: Sequence[Tensor]) -> dict[str, Tensor]:
    """The head's raw answers on a pyramid: by name, (N, anchors of all levels, …), as float32."""
    # Under autocast the head answers in half precision; boxes of a thousand pixels need float32.
    return {name: each.float() for name, each in detector.head(list(pyramid)).items()}


def dense_losses(
    detector: FCOS | RetinaNet,
    pyramid: Sequence[Tensor],
    frame: Frame,
    targets: Sequence[Target],
    outputs: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The detector's named losses on a pyramid: what its own forward gives on images with these features.

    Args:
        pyramid: maps (N, C, h, w), finest first.
        frame: the frame that the boxes of the N targets live in.
        outputs: what `dense_outputs` gave for this pyramid, if it was called already.
    """
    outputs = outputs or dense_outputs(detector, pyramid)
    anchors, per_level = _anchors(detector, pyramid, frame)
    cells = [per_level] if isinstance(detector, FCOS) else []
    losses: dict[str, Tensor] = detector.compute_loss(list(targets), outputs, anchors, *cells)
    return losses


def dense_losses_of_views(
    detector: FCOS | RetinaNet, pyramids: Sequence[Sequence[Tensor]], frame: Frame, targets: Sequence[Target]
) -> list[dict[str, Tensor]]:
    """What `dense_losses` gives for each of several pyramids of one frame.

    Which anchors stand for which objects depends on frame and targets alone, so it is found once.
    """
    losses = [dense_losses(detector, pyramids[0], frame, targets)]
    anchors, _ = _anchors(detector, pyramids[0], frame)
    assigned = detector.head.assigned
    for each in pyramids[1:]:
        outputs = dense_outputs(detector, each)
        losses.append(detector.head.compute_loss(list(targets), outputs, anchors, assigned))
    return losses


def dense_boxes(
    detector: FCOS | RetinaNet, pyramid: Sequence[Tensor], frame: Frame, outputs: dict[str, Tensor]
) -> Tensor:
    """The box that each anchor answers: (N, anchors of all levels, 4), corners in the frame's pixels, not clipped.

    Gradients flow to `bbox_regression`.

    Args:
        outputs: what `dense_outputs` gave for this pyramid.
    """
    anchors, _ = _anchors(detector, pyramid, frame)
    codes = outputs["bbox_regression"]
    coder = detector.box_coder
    decode = coder.decode if isinstance(detector, FCOS) else coder.decode_single
    boxes: Tensor = decode(codes.flatten(0, 1), torch.cat(anchors))
    return boxes.view_as(codes)


def dense_detections(
    detector: FCOS | RetinaNet,
    pyramid: Sequence[Tensor],
    frame: Frame,
    silent: Sequence[int] = (),
    outputs: dict[str, Tensor] | None = None,
) -> list[Detection]:
    """The detector's detections on a pyramid, in HR pixels and clipped to the image, one dict an image.

    Args:
        silent: labels that are never answered, and take no place of others.
        outputs: what `dense_outputs` gave for this pyramid, if it was called already; it is written to.
    """
    outputs, (anchors, per_level) = outputs or dense_outputs(detector, pyramid), _anchors(detector, pyramid, frame)
    outputs["cls_logits"][..., list(silent)] = -torch.inf
    detections: list[Detection] = detector.postprocess_detections(
        {name: list(each.split(per_level, dim=1)) for name, each in outputs.items()},
        [list(each.split(per_level)) for each in anchors],
        list(frame.image_sizes),
    )
    return [finite(each) for each in detections]


def finite(detection: Detection) -> Detection:
    """A detection without the objects of which a value is no finite number: damaged weights answer such."""
    whole = [each.flatten(1).isfinite().all(dim=1) for name, each in detection.items() if each.dim() > 1]
    # A score that is no number has passed no threshold.
    kept = torch.stack(whole).all(dim=0)
    return {name: each[kept] for name, each in detection.items()}


def image_list(frame: Frame) -> ImageList:
    """A frame as torchvision's list of images: shapes without pixels."""
    pixels = torch.empty((len(frame.image_sizes), 3, *frame.padded), device="meta")
    return ImageList(pixels, list(frame.image_sizes))


def _anchors(detector: FCOS | RetinaNet, pyramid: Sequence[Tensor], frame: Frame) -> tuple[list[Tensor], list[int]]:
    """The anchors of each image, and how many of them each level has."""
    # The anchor generator reads shape, dtype and device of its maps, never their values.
    grids = [each.new_empty((), dtype=torch.float32).expand(each.shape) for each in pyramid]
    anchors = detector.anchor_generator(image_list(frame), grids)
    counts = detector.anchor_generator.num_anchors_per_location()
    per_level = [count * each.shape[-2] * each.shape[-1] for count, each in zip(counts, pyramid, strict=True)]
    return anchors, per_level
