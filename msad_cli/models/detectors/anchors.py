"""Anchors in the frame: for torchvision's own code, cell by cell, and on grids whose size is not known beforehand."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from msad_cli.frame import Frame
from msad_cli.models.spec import DetectorSpec

RATIOS = (0.5, 1.0, 2.0)
"""Height by width of the anchors of RetinaNet and of proposals."""


class LevelAnchors(AnchorGenerator):  # type: ignore[misc]
    """Torchvision's anchors on cells that are as far apart as their level says.

    Torchvision divides the sides of the image by those of a grid. Of a grid that ends with a part of a cell it makes
    cells closer than the network's: of 160 pixels and two of P7's, 80 pixels instead of 128.

    Args:
        levels: l of each P_l.
    """

    def __init__(
        self, sizes: Sequence[Sequence[int]], ratios: Sequence[Sequence[float]], levels: Sequence[int]
    ) -> None:
        super().__init__(sizes, ratios)
        self.levels = tuple(levels)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Of each image, (anchors of all levels, 4)."""
        like = feature_maps[0]
        self.set_cell_anchors(like.dtype, like.device)
        strides = [[torch.tensor(2**level, device=like.device)] * 2 for level in self.levels]
        anchors = torch.cat(self.grid_anchors([each.shape[-2:] for each in feature_maps], strides))
        return [anchors for _ in image_list.image_sizes]


def anchors_of(spec: DetectorSpec, sizes: Sequence[Sequence[int]], ratios: Sequence[float]) -> AnchorGenerator:
    """The anchors of a detector: of each level sizes, in pixels, and ratios, height by width.

    A detector that is not aligned is torchvision's own, with its strides.
    """
    each = (tuple(ratios),) * len(spec.levels)
    return LevelAnchors(sizes, each, spec.levels) if spec.scales == "aligned" else AnchorGenerator(sizes, each)


def octave_anchors(spec: DetectorSpec) -> AnchorGenerator:
    """RetinaNet's anchors: 9 a cell, of 3 sizes within an octave and 3 ratios. Torchvision's own default, P3 first."""
    octave = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    sides = (32, 64, 128, 256, 512)[: len(spec.levels)]
    return anchors_of(spec, [tuple(int(side * part) for part in octave) for side in sides], RATIOS)


def image_list(frame: Frame) -> ImageList:
    """A frame as torchvision's list of images: shapes without pixels."""
    pixels = torch.empty((len(frame.image_sizes), 3, *frame.padded), device="meta")
    return ImageList(pixels, list(frame.image_sizes))


def anchors_of_images(
    generator: AnchorGenerator, pyramid: Sequence[Tensor], frame: Frame
) -> tuple[list[Tensor], list[int]]:
    """The anchors of each image, (anchors of all levels, 4) corners in pixels of the frame, and each level's number."""
    # The generator reads shape, dtype and device of its maps, never their values; boxes need float32.
    grids = [each.new_empty((), dtype=torch.float32).expand(each.shape) for each in pyramid]
    anchors = generator(image_list(frame), grids)
    counts = generator.num_anchors_per_location()
    per_level = [count * each.shape[-2] * each.shape[-1] for count, each in zip(counts, pyramid, strict=True)]
    return anchors, per_level


def anchors_by_cell(generator: AnchorGenerator, pyramid: Sequence[Tensor], frame: Frame) -> list[Tensor]:
    """A generator's anchors on the grids of a pyramid: of each level, (h·w, A, 4), corners in pixels of the frame."""
    anchors, per_level = anchors_of_images(generator, pyramid, frame)
    counts = generator.num_anchors_per_location()
    levels = anchors[0].split(per_level)
    return [level.unflatten(0, (-1, count)) for level, count in zip(levels, counts, strict=True)]


def grid_anchors(generator: AnchorGenerator, level: int, stride: tuple[int, int], grid: Tensor) -> Tensor:
    """The anchors of one level, (h·w·A, 4) corners in HR pixels, ordered as the heads' predictions.

    Torchvision's own generator divides the sides of the image by those of the grid, which a graph would have to prove.

    Args:
        stride: of the level, down and across in HR pixels.
        grid: the level's map (N, C, h, w); only its shape counts.
    """
    y = torch.arange(grid.shape[2], device=grid.device) * stride[0]
    x = torch.arange(grid.shape[3], device=grid.device) * stride[1]
    places = torch.stack([each.flatten() for each in torch.meshgrid(x, y, indexing="xy")], dim=1).float()
    cells = generator.cell_anchors[level].to(places)
    anchors: Tensor = (places.repeat(1, 2)[:, None] + cells).flatten(0, 1)
    return anchors
