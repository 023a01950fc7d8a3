"""Large images in tiles: small objects keep their pixels, and what overlaps is found once."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from msad_cli.data.images.scaled import ScaledImage, open_image, whole_image
from msad_cli.errors import DataError
from msad_cli.export.runtime import Model
from msad_cli.inference.inputs import Input
from msad_cli.inference.predictor import Prediction, Wanted, predict
from msad_cli.models.decode.nms import overlap_of
from msad_cli.models.spec import View
from msad_cli.system.device import Compute

Corners = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the whole image."""
AT_THE_EDGE = 2.0
"""Pixels of the image: a box as near as this to where its tile was cut may be a part of an object."""
COVERED = 0.6
"""Share of such a box's area that lies in a whole one of its class, above which it is taken for a part of that."""


def tile_corners(width: int, height: int, side: int, overlap: float) -> list[Corners]:
    """Tiles of `side` pixels, or of the image's own side where that is less, evenly spread over an image.

    Args:
        overlap: the least share of a tile's side that lies in its neighbour too; below 1.
    """

    def starts(length: int) -> list[int]:
        if length <= side:
            return [0]
        count = 1 + math.ceil((length - side) / (side * (1 - overlap)))
        return [round(place * (length - side) / (count - 1)) for place in range(count)]

    return [(x, y, min(x + side, width), min(y + side, height)) for y in starts(height) for x in starts(width)]


def predict_tiled(
    detector: Model,
    view: View,
    inputs: Sequence[Input],
    wanted: Wanted,
    compute: Compute,
    batch: int,
    side: int,
    overlap: float,
) -> Iterator[Prediction | DataError]:
    """As `predictor.predict`, each image being looked at in tiles and, for objects that no tile holds, as a whole.

    Args:
        side: of a tile, in pixels of the image.
        overlap: as `tile_corners` takes it.
    """
    for source in inputs:
        try:
            scaled = open_image(source.path, detector.spec.tones) if source.image is None else whole_image(source.image)
            whole = scaled.at(1)
        except DataError as error:
            yield error
            continue
        tiles = tile_corners(whole.width, whole.height, side, overlap)
        places = [(0, 0, whole.width, whole.height), *(tiles if len(tiles) > 1 else [])]
        parts = [replace(source, image=whole.crop(corners)) for corners in places]
        looked = predict(detector, view, parts, Wanted(wanted.score), compute, batch)
        found = [each for each in looked if isinstance(each, Prediction)]  # pixels can be read
        yield _merged(source, scaled, wanted, found, places)


def _merged(
    source: Input, scaled: ScaledImage, wanted: Wanted, found: Sequence[Prediction], places: Sequence[Corners]
) -> Prediction:
    moved = [_moved(each.found, corners) for each, corners in zip(found, places, strict=True)]
    together = {name: torch.cat([each[name] for each in moved]) for name in moved[0]}
    parts = torch.cat([_cut(each["boxes"], corners, places[0]) for each, corners in zip(moved, places, strict=True)])
    lone = ~_covered(together["boxes"], together["labels"], parts)
    together = {name: each[lone] for name, each in together.items()}
    kept = batched_nms(together["boxes"], together["scores"], together["labels"], overlap_of(wanted.overlap))
    answer = wanted.of({name: each[kept] for name, each in together.items()})
    seconds = sum(each.seconds for each in found)
    return Prediction(source, scaled, answer, None, any(each.cut for each in found), seconds)


def _moved(found: dict[str, Tensor], corners: Corners) -> dict[str, Tensor]:
    """What was found in a tile, in pixels of the whole image."""
    x, y = corners[:2]
    shifts = {"boxes": [x, y, x, y], "mask_boxes": [x, y, x, y], "keypoints": [x, y, 0]}
    return {name: each + each.new_tensor(shifts[name]) if name in shifts else each for name, each in found.items()}


def _cut(boxes: Tensor, corners: Corners, whole: Corners) -> Tensor:
    """Which boxes (D, 4) lie at a side of their tile that is no side of the image: (D,) bool."""
    inner = torch.tensor([tile != image for tile, image in zip(corners, whole, strict=True)])
    near = (boxes - boxes.new_tensor(corners)).abs() <= AT_THE_EDGE
    return (near & inner).any(dim=1)


def _covered(boxes: Tensor, labels: Tensor, parts: Tensor) -> Tensor:
    """Which of the boxes that may be parts of objects lie in a whole one of their class: (D,) bool."""
    least = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    most = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (most - least).clamp(min=0).prod(dim=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).clamp(min=1e-6)
    inside = (shared > COVERED * areas[:, None]) & (labels[:, None] == labels) & ~parts
    return parts & inside.any(dim=1)
