"""What Mask R-CNN and Keypoint R-CNN find in whole batches: torchvision's two stages without its loops over images.

Regions are computed only where there are any; between the stages they stand in tensors of fixed shapes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import MultiScaleRoIAlign, clip_boxes_to_image, roi_align

from msad_cli.models.decode.keypoints import keypoint_places
from msad_cli.models.decode.nms import DROPPED, suppress, taken, top
from msad_cli.models.detectors.grid_anchors import grid_anchors

THINNEST = 1e-2
"""HR pixels: torchvision's limit on the sides of what is found."""


def decode_regions(
    detector: FasterRCNN, pyramid: Sequence[Tensor], strides: Sequence[int], size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """The detections of a batch.

    Args:
        pyramid: maps (N, C, h, w), finest first, `strides` HR pixels a cell.
        size: of the images, (height, width) in HR pixels.

    Returns:
        Boxes (N, D, 4) in HR pixels, clipped; scores (N, D), descending, `DROPPED` where there are no more; labels
        (N, D) from 1; and by task masks (N, D, 28, 28), probabilities on a grid over each box, or keypoints
        (N, D, K, 3), x and y in HR pixels and 1, with their logits (N, D, K).
    """
    heads = detector.roi_heads
    proposals, found = _proposals(detector.rpn, pyramid, strides, size)
    rows, regions = _regions(proposals, found)
    logits, codes = heads.box_predictor(heads.box_head(_read(heads.box_roi_pool, pyramid, regions)))
    classes = logits.shape[1]
    decoded = heads.box_coder.decode_single(codes, regions[:, 1:]).unflatten(1, (classes, 4))
    # The first class is the background.
    boxes = _put_back(clip_boxes_to_image(decoded, size)[:, 1:].flatten(1), rows, proposals).unflatten(2, (-1, 4))
    scores = _put_back(logits.softmax(dim=1)[:, 1:], rows, proposals)
    labels = torch.arange(1, classes, device=rows.device).expand(scores.shape).flatten(1)
    boxes, scores = boxes.flatten(1, 2), scores.flatten(1)
    good = (scores > heads.score_thresh) & _has_sides(boxes, THINNEST)
    scores = suppress(boxes, torch.where(good, scores, DROPPED), labels, classes, heads.nms_thresh)
    scores, places = top(scores, heads.detections_per_img)
    boxes, labels = taken(boxes, places), labels.gather(1, places)
    return boxes, scores, labels, _details(detector, pyramid, boxes, scores, labels)


def _proposals(
    network: RegionProposalNetwork, pyramid: Sequence[Tensor], strides: Sequence[int], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Boxes (N, P, 4) in HR pixels that may hold something, and (N, P) which of them there are."""
    levels = []
    for level, (grid, logits, deltas) in enumerate(zip(pyramid, *network.head(list(pyramid)), strict=True)):
        anchors = grid_anchors(network.anchor_generator, level, strides[level], grid)
        best, places = top(logits.permute(0, 2, 3, 1).flatten(1).sigmoid(), network.pre_nms_top_n())
        codes = taken(deltas.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3), places)
        boxes = network.box_coder.decode_single(codes.flatten(0, 1), anchors[places].flatten(0, 1)).view_as(codes)
        levels.append((boxes, best, torch.full_like(places, level)))
    boxes, scores, groups = (torch.cat(each, dim=1) for each in zip(*levels, strict=True))
    boxes = clip_boxes_to_image(boxes, size)
    scores = torch.where(_has_sides(boxes, network.min_size), scores, DROPPED)
    scores = suppress(boxes, scores, groups, len(levels), network.nms_thresh)
    scores, places = top(scores, network.post_nms_top_n())
    return taken(boxes, places), scores > DROPPED


def _details(
    detector: FasterRCNN, pyramid: Sequence[Tensor], boxes: Tensor, scores: Tensor, labels: Tensor
) -> list[Tensor]:
    """What there is beside boxes, for the detections that there are; zeros for the others."""
    heads = detector.roi_heads
    rows, regions = _regions(boxes, scores > DROPPED)
    if heads.has_mask():
        read = _read(heads.mask_roi_pool, pyramid, regions)
        masks = heads.mask_predictor(heads.mask_head(read)).sigmoid()
        of_label = labels.flatten()[rows][:, None, None, None].expand(-1, -1, *masks.shape[2:])
        return [_put_back(masks.gather(1, of_label)[:, 0], rows, boxes)]
    read = _read(heads.keypoint_roi_pool, pyramid, regions)
    heatmaps = heads.keypoint_predictor(heads.keypoint_head(read))
    return [_put_back(each, rows, boxes) for each in keypoint_places(heatmaps, regions[:, 1:])]


def _has_sides(boxes: Tensor, least: float) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2] >= least).all(dim=-1)


def _regions(boxes: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """The boxes (N, B, 4) that there are: their rows (R,) among N·B, and (R, 5), the place of the image before
    corners."""
    rows = found.flatten().nonzero()[:, 0]
    image = (rows // boxes.shape[1]).to(boxes.dtype)
    return rows, torch.cat([image[:, None], boxes.flatten(0, 1)[rows]], dim=1)


def _put_back(values: Tensor, rows: Tensor, boxes: Tensor) -> Tensor:
    """Values (R, …) of some rows of boxes (N, B, 4) -> (N, B, …), zero elsewhere."""
    whole = values.new_zeros(boxes.shape[0] * boxes.shape[1], *values.shape[1:])
    filled: Tensor = whole.index_put((rows,), values).unflatten(0, boxes.shape[:2])
    return filled


def _read(pool: MultiScaleRoIAlign, pyramid: Sequence[Tensor], regions: Tensor) -> Tensor:
    """What a pool reads of regions (R, 5), each from the level of its size: (R, C, h, w)."""
    cells = pool.output_size
    levels = pool.map_levels([regions[:, 1:]])
    whole = pyramid[0].new_zeros(regions.shape[0], pyramid[0].shape[1], *cells)
    for level, scale in enumerate(pool.scales):
        rows = (levels == level).nonzero()[:, 0]
        read = roi_align(pyramid[level], regions[rows], cells, scale, pool.sampling_ratio)
        whole = whole.index_put((rows,), read)
    return whole
