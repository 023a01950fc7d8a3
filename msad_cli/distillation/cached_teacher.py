"""A frozen teacher whose pyramids are cached, so that a student's steps do without its forward pass."""

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from msad_cli.distillation.knowledge import Inside, Knowledge
from msad_cli.models.detector import Detector, Views, as_convolved
from msad_cli.models.detectors.base import Target

CachedPyramids = Callable[[int, bool], Sequence[Tensor]]
"""From an image's place in its split, and whether it is mirrored, to maps (C, h, w) on the grids of its own frame."""


class CachedTeacher:
    """What a teacher that looked once at every image knows of a batch; for students that share its HR frame.

    Its maps are those of each image alone. Where a batch is padded beyond an image's own frame they are zero, and
    `inside` tells so. Images of one size have one frame, and maps that are the teacher's own but for their rounding.

    Args:
        teacher: its head predicts on the cached maps.
        cached: gives the maps of an image.
    """

    def __init__(self, teacher: Detector, cached: CachedPyramids) -> None:
        self._teacher = teacher
        self._cached = cached

    def __call__(self, views: Views, targets: Sequence[Target]) -> Knowledge:
        """As a teacher's own forward pass; each target names its `image` (place in the split, mirrored)."""
        k = min(views)
        device = views[k][0].device
        frame = self._teacher.frame(views[k], k)
        grids = [frame.grid(level) for level in self._teacher.spec.levels]
        # On a GPU each reading waits for all work before; so there is one.
        places = torch.cat([target["image"] for target in targets]).tolist()
        counts = [len(target["image"]) for target in targets]
        images = [places[end - count : end] for end, count in zip(accumulate(counts), counts, strict=True)]
        maps = [self._of(image, grids) for image in images]
        dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32
        by_level = list(zip(*maps, strict=True))
        padded = [_padded(each, grid).to(device, dtype) for each, grid in zip(by_level, grids, strict=True)]
        pyramid = [as_convolved(each) for each in padded]
        inside = None
        whole = [all(each.shape[-2:] == grid for each, grid in zip(levels, grids, strict=True)) for levels in maps]
        if not all(whole):
            known = [[torch.ones_like(each[:1]) for each in level] for level in by_level]
            parts = [_padded(each, grid).to(device, dtype) for each, grid in zip(known, grids, strict=True)]
            inside = Inside(parts, whole)
        return Knowledge(self._teacher, pyramid, frame, views, inside)

    def _of(self, image: list[int], grids: Sequence[tuple[int, int]]) -> Sequence[Tensor]:
        if image:
            return self._cached(image[0], bool(image[1]))
        # What stands for an empty share of a batch is no image, and counts for nothing.
        return [torch.zeros(self._teacher.spec.channels, *grid) for grid in grids]


def _padded(maps: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """Maps (C, h, w) of several sizes -> (N, C, *grid), zero to the right and below."""
    return torch.stack([F.pad(each, (0, grid[1] - each.shape[-1], 0, grid[0] - each.shape[-2])) for each in maps])
