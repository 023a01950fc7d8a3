"""Shared by tests: a dot, and a network that is the same seen from left and right."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SIDE = 256
"""Pixels of the image with the dot."""
CENTRE = (121, 142)
"""Row and column of the pixel on which the dot is centred."""


def dot() -> Image.Image:
    """A white dot in a black image: a Gaussian of 20 pixels, wide enough for grids of 32 pixels a cell."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    squared = (rows - CENTRE[0]) ** 2 + (columns - CENTRE[1]) ** 2
    grey = (255 * np.exp(-squared / 800)).round().astype(np.uint8)
    return Image.fromarray(np.stack([grey] * 3, axis=2))


def strided(maps: Tensor, times: int) -> Tensor:
    """(N, C, h, w) after so many convolutions of stride 2, each with ¼, ½, ¼ across and down, padded by one."""
    kernel = torch.tensor([0.25, 0.5, 0.25])
    weight = (kernel[:, None] * kernel)[None, None].repeat(maps.shape[1], 1, 1, 1)
    for _ in range(times):
        maps = F.conv2d(maps, weight, stride=2, padding=1, groups=maps.shape[1])
    return maps


def centroid(maps: Tensor) -> tuple[float, float]:
    """Row and column, in cells from 0, of the mean place of what is in the first map."""
    one = maps[0, 0].double()
    total = one.sum()
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in one.shape)
    return float((one.sum(1) * rows).sum() / total), float((one.sum(0) * columns).sum() / total)
