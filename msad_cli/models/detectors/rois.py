"""The two stages of torchvision's R-CNNs for whole batches, in tensors of fixed shapes and without loops over images.

RoIs are computed only where there are any; between the stages they stand in tensors of fixed shapes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import MultiScaleRoIAlign, clip_boxes_to_image, roi_align
from torchvision.ops.poolers import LevelMapper

from msad_cli.models.decode.nms import DROPPED, suppress, taken, top
from msad_cli.models.detectors.anchors import grid_anchors

THINNEST = 1e-2
"""HR pixels: torchvision's limit on the sides of what is found."""


def hr_roi_align(cells: int) -> MultiScaleRoIAlign:
    """RoIAlign to grids of so many cells a side, from the four finest of five levels, P2–P5 of the HR view."""
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], cells, sampling_ratio=2)
    # Left to itself, it takes the scales from the first batch that it meets, and wrong ones if that is padded by more
    # than 41 %; a frame has the same strides always.
    pool.scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    pool.map_levels = LevelMapper(2, 5, pool.canonical_scale, pool.canonical_level)
    return pool


def decode_proposals(
    network: RegionProposalNetwork, pyramid: Sequence[Tensor], strides: Sequence[tuple[int, int]], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Boxes (N, P, 4) in HR pixels that may hold something, and (N, P) which of them there are.

    Args:
        pyramid: maps (N, C, h, w), finest first, `strides` HR pixels a cell, down and across.
        size: of the images, (height, width) in HR pixels.
    """
    levels = []
    for level, (grid, logits, maps) in enumerate(zip(pyramid, *network.head(list(pyramid)), strict=True)):
        anchors = grid_anchors(network.anchor_generator, level, strides[level], grid)
        best, places = top(logits.permute(0, 2, 3, 1).flatten(1).sigmoid(), network.pre_nms_top_n())
        deltas = taken(maps.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3), places)
        boxes = network.box_coder.decode_single(deltas.flatten(0, 1), anchors[places].flatten(0, 1)).view_as(deltas)
        levels.append((boxes, best, torch.full_like(places, level)))
    boxes, scores, groups = (torch.cat(each, dim=1) for each in zip(*levels, strict=True))
    boxes = clip_boxes_to_image(boxes, size)
    scores = torch.where(_has_sides(boxes, network.min_size), scores, DROPPED)
    most = network.post_nms_top_n()
    scores, places = top(suppress(boxes, scores, groups, len(levels), network.nms_thresh, most), most)
    return taken(boxes, places), scores > DROPPED


def decode_boxes(
    stages: Sequence[RoIHeads], pyramid: Sequence[Tensor], proposals: Tensor, found: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """The second stage, which may itself be several: class scores are their mean, boxes the last one's.

    Args:
        stages: each looks at the boxes of the one before it, whose deltas are equal for all classes.
        proposals, found: what `decode_proposals` gives.

    Returns:
        Boxes (N, D, 4) in HR pixels, clipped; scores (N, D), descending, `DROPPED` where there are no more; labels
        (N, D) from 1.
    """
    rows, rois = rois_of(proposals, found)
    shares = []
    for heads in stages:
        logits, deltas = heads.box_predictor(heads.box_head(read(heads.box_roi_pool, pyramid, rois)))
        decoded = heads.box_coder.decode_single(deltas, rois[:, 1:]).unflatten(1, (-1, 4))
        decoded = clip_boxes_to_image(decoded, size)
        rois = torch.cat([rois[:, :1], decoded[:, 0]], dim=1)
        shares.append(logits.softmax(dim=1))
    classes = logits.shape[1]
    # The first class is the background.
    boxes = put_back(decoded[:, 1:].flatten(1), rows, proposals).unflatten(2, (-1, 4))
    scores = put_back(torch.stack(shares).mean(dim=0)[:, 1:], rows, proposals)
    labels = torch.arange(1, classes, device=rows.device).expand(scores.shape).flatten(1)
    boxes, scores = boxes.flatten(1, 2), scores.flatten(1)
    good = (scores > heads.score_thresh) & _has_sides(boxes, THINNEST)
    scores, most = torch.where(good, scores, DROPPED), heads.detections_per_img
    scores, places = top(suppress(boxes, scores, labels, classes, heads.nms_thresh, most), most)
    return taken(boxes, places), scores, labels.gather(1, places)


def rois_of(boxes: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """The boxes (N, B, 4) that there are: their rows (R,) among N·B, and (R, 5), the place of the image before
    corners."""
    rows = found.flatten().nonzero()[:, 0]
    image = (rows // boxes.shape[1]).to(boxes.dtype)
    return rows, torch.cat([image[:, None], boxes.flatten(0, 1)[rows]], dim=1)


def put_back(values: Tensor, rows: Tensor, boxes: Tensor) -> Tensor:
    """Values (R, …) of some rows of boxes (N, B, 4) -> (N, B, …), zero elsewhere."""
    whole = values.new_zeros(boxes.shape[0] * boxes.shape[1], *values.shape[1:])
    filled: Tensor = whole.index_put((rows,), values).unflatten(0, boxes.shape[:2])
    return filled


def read(pool: MultiScaleRoIAlign, pyramid: Sequence[Tensor], rois: Tensor) -> Tensor:
    """What a pool reads of RoIs (R, 5), each from the level of its size: (R, C, h, w)."""
    cells = pool.output_size
    levels = pool.map_levels([rois[:, 1:]])
    whole = pyramid[0].new_zeros(rois.shape[0], pyramid[0].shape[1], *cells)
    for level, scale in enumerate(pool.scales):
        rows = (levels == level).nonzero()[:, 0]
        aligned = roi_align(pyramid[level], rois[rows], cells, scale, pool.sampling_ratio)
        whole = whole.index_put((rows,), aligned)
    return whole


def _has_sides(boxes: Tensor, least: float) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2] >= least).all(dim=-1)
