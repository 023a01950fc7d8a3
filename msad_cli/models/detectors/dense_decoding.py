"""What FCOS and RetinaNet find in whole batches: torchvision's post-processing without its loops over images."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.ops import clip_boxes_to_image

from msad_cli.models.decode.nms import DROPPED, suppress, taken, top
from msad_cli.models.detectors.dense import dense_outputs
from msad_cli.models.detectors.grid_anchors import grid_anchors
from msad_cli.models.detectors.stock import BACKGROUND


def decode_dense(
    detector: FCOS | RetinaNet, pyramid: Sequence[Tensor], strides: Sequence[int], size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """The detections of a batch.

    Args:
        pyramid: maps (N, C, h, w), finest first, `strides` HR pixels a cell.
        size: of the images, (height, width) in HR pixels.

    Returns:
        Boxes (N, D, 4) in HR pixels, clipped; scores (N, D), descending, `DROPPED` where there are no more; labels
        (N, D) from 1.
    """
    levels = [_candidates(detector, level, strides[level], grid) for level, grid in enumerate(pyramid)]
    boxes, scores, labels = (torch.cat(each, dim=1) for each in zip(*levels, strict=True))
    boxes = clip_boxes_to_image(boxes, size)
    classes = detector.head.classification_head.num_classes
    scores = torch.where(scores > detector.score_thresh, scores, DROPPED)
    scores, places = top(suppress(boxes, scores, labels, classes, detector.nms_thresh), detector.detections_per_img)
    return taken(boxes, places), scores, labels.gather(1, places)


def _candidates(detector: FCOS | RetinaNet, level: int, stride: int, grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A level's best boxes (N, K, 4), not clipped, scores (N, K) and labels (N, K)."""
    outputs = dense_outputs(detector, [grid])
    scores = outputs["cls_logits"][..., len(BACKGROUND) :].sigmoid()
    if isinstance(detector, FCOS):
        scores = (scores * outputs["bbox_ctrness"].sigmoid()).sqrt()
    classes = scores.shape[2]
    best, places = top(scores.flatten(1), detector.topk_candidates)
    rows = places // classes
    anchors = grid_anchors(detector.anchor_generator, level, stride, grid)[rows].flatten(0, 1)
    codes = taken(outputs["bbox_regression"], rows)
    coder = detector.box_coder
    decode = coder.decode if isinstance(detector, FCOS) else coder.decode_single
    return decode(codes.flatten(0, 1), anchors).view_as(codes), best, places % classes + len(BACKGROUND)
