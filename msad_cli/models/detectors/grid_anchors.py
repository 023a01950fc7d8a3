"""Anchors on grids whose size is known only when an image comes."""

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator


def grid_anchors(generator: AnchorGenerator, level: int, stride: int, grid: Tensor) -> Tensor:
    """The anchors of one level, (h·w·A, 4) corners in HR pixels, ordered as the heads' answers.

    Torchvision's own generator divides the sides of the image by those of the grid, which a graph would have to prove.

    Args:
        stride: of the level, in HR pixels.
        grid: the level's map (N, C, h, w); only its shape counts.
    """
    y = torch.arange(grid.shape[2], device=grid.device) * stride
    x = torch.arange(grid.shape[3], device=grid.device) * stride
    places = torch.stack([each.flatten() for each in torch.meshgrid(x, y, indexing="xy")], dim=1).float()
    cells = generator.cell_anchors[level].to(places)
    anchors: Tensor = (places.repeat(1, 2)[:, None] + cells).flatten(0, 1)
    return anchors
