"""The pieces of a sample: an image of a split as it is shown there, and what is to be found in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import masks_to_boxes

from msad_cli.data.annotations.split import CocoSplit
from msad_cli.data.images.scaled import ScaledImage
from msad_cli.data.loading.transforms import Placement
from msad_cli.frame import Phase

GREY = (124, 116, 104)
"""Where nothing is shown: the mean colour of ImageNet, which is zero to a network, as the padding of a batch is."""


@dataclass(frozen=True)
class Piece:
    """An image in a frame.

    Attributes:
        way: how it is shown.
        views: by k, uint8 RGB (3, h, w): of the view of the frame the part that it covers.
        target: its `boxes`, `labels`, and `masks` or `keypoints`, as a `Sample` has them.
    """

    way: Placement
    views: dict[int, Tensor]
    target: dict[str, Tensor]


def shown(
    split: CocoSplit,
    index: int,
    image: ScaledImage,
    way: Placement,
    ks: Sequence[int],
    phase: Phase,
    changed: Callable[[Tensor], Tensor] = lambda pixels: pixels,
) -> Piece:
    """An image of a split with its objects.

    Args:
        index: its place in the split.
        phase: that of the model's spec.
        changed: what is done to the pixels of each view.

    Raises:
        DataError: its pixels cannot be read.
    """
    views = {k: changed(way.view(image, k, phase)) for k in ks}
    return Piece(way, views, _objects(split, index, way))


def composed(pieces: Sequence[Piece]) -> tuple[dict[int, Tensor], dict[str, Tensor]]:
    """The views of a frame by k, uint8 RGB (3, h/k, w/k), and all that is to be found in it.

    Args:
        pieces: one or more, of one frame.
    """
    height, width = pieces[0].way.frame_size
    views = {}
    for k in pieces[0].views:
        views[k] = torch.tensor(GREY, dtype=torch.uint8)[:, None, None].repeat(1, height // k, width // k)
        for piece in pieces:
            top, left, bottom, right = (edge // k for edge in piece.way.shown)
            views[k][:, top:bottom, left:right] = piece.views[k]
    names = pieces[0].target
    return views, {name: torch.cat([piece.target[name] for piece in pieces]) for name in names}


def _objects(split: CocoSplit, index: int, way: Placement) -> dict[str, Tensor]:
    """What is to be found in an image that is shown this way."""
    first, end = int(split.starts[index]), int(split.starts[index + 1])
    boxes, kept, cut = way.boxes(torch.from_numpy(split.boxes[first:end]))
    target = {"boxes": boxes, "labels": torch.from_numpy(split.labels[first:end])[kept]}
    rows = first + kept.nonzero().flatten()
    if split.task == "keypoints":
        target["keypoints"] = way.keypoints(torch.from_numpy(split.keypoints)[rows], split.scheme.mirrored)
    if split.task == "masks":
        masks = way.masks([split.masks.segmentation(int(row)) for row in rows])
        drawn = masks.flatten(1).amax(dim=1) > 0  # a polygon thinner than a pixel may cover none
        target = {name: each[drawn] for name, each in (target | {"masks": masks}).items()}
        # A box around all of an object is too large for the part of it that is left.
        cut = cut[drawn]
        target["boxes"][cut] = masks_to_boxes(target["masks"][cut]) + boxes.new_tensor([0, 0, 1, 1])
    return target
