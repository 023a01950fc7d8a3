"""Anchors, cell by cell: what a method needs that asks which cells an object has to do with."""

from collections.abc import Sequence

from torch import Tensor
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from msad_cli.frame import Frame
from msad_cli.models.detectors.dense import image_list

OCTAVE = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
RATIOS = (0.5, 1.0, 2.0)


def object_anchors(detector: FCOS | RetinaNet | FasterRCNN, pyramid: Sequence[Tensor], frame: Frame) -> list[Tensor]:
    """Anchors of the sizes that objects have: RetinaNet's own, a region proposal network's own, for FCOS RetinaNet's 9.

    FCOS has one square a cell, as large as the stride: it marks a place, and stands for no object.

    Args:
        pyramid: maps (N, C, h, w), of which the grids count.
        frame: in whose pixels the anchors are answered.

    Returns:
        Of each level, (h·w, A, 4): corners in pixels of the frame, the same for every image.
    """
    if isinstance(detector, FasterRCNN):
        return anchors_by_cell(detector.rpn.anchor_generator, pyramid, frame)
    if isinstance(detector, RetinaNet):
        return anchors_by_cell(detector.anchor_generator, pyramid, frame)
    sizes = tuple(tuple(int(side * part) for part in OCTAVE) for side in (32, 64, 128, 256, 512))
    return anchors_by_cell(AnchorGenerator(sizes, (RATIOS,) * len(sizes)), pyramid, frame)


def anchors_by_cell(generator: AnchorGenerator, pyramid: Sequence[Tensor], frame: Frame) -> list[Tensor]:
    """A generator's anchors on the grids of a pyramid: of each level, (h·w, A, 4), corners in pixels of the frame."""
    # The generator reads shape, dtype and device of its maps, never their values; boxes need float32.
    grids = [each.new_empty(()).float().expand(each.shape) for each in pyramid]
    every: Tensor = generator(image_list(frame), grids)[0]
    counts = generator.num_anchors_per_location()
    cells = [each.shape[-2] * each.shape[-1] for each in pyramid]
    levels = every.split([count * cell for count, cell in zip(counts, cells, strict=True)])
    return [level.unflatten(0, (cell, count)) for level, cell, count in zip(levels, cells, counts, strict=True)]
