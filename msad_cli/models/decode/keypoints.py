"""From heatmaps over boxes to keypoints, all boxes at once.

Torchvision enlarges the heatmaps of each box to the pixels of the box, by bicubic interpolation, and takes the highest
pixel; boxes have different sizes, which makes a loop. Here the pixels around the highest cell are computed alone, as
many for every box.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 28
"""Pixels that are looked at on each side of the highest cell's middle. Boxes of up to 57 HR pixels are seen whole; a
cell of 56 is as wide as this in a box of 1568."""
SHARPNESS = -0.75
"""The a of bicubic interpolation, as torch has it."""
BEYOND = 2
"""Cells that the interpolation reads beyond the edge, where the last one goes on."""


def keypoint_places(heatmaps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Where heatmaps are highest.

    Args:
        heatmaps: (R, K, h, w) logits over each box.
        boxes: (R, 4) corners in pixels.

    Returns:
        Keypoints (R, K, 3), x and y in those pixels and 1; and (R, K) the logits there.
    """
    height, width = heatmaps.shape[2:]
    highest = heatmaps.flatten(2).argmax(dim=2)
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    x, across = _window(highest % width, sides[:, :1], width)
    y, down = _window(highest // width, sides[:, 1:], height)
    padded = F.pad(heatmaps, (BEYOND,) * 4, mode="replicate")
    fine = down @ padded @ across.transpose(2, 3)
    logits, best = fine.flatten(2).max(dim=2)
    columns, rows = best % x.shape[2], best // x.shape[2]
    found = torch.stack([_at(x, columns) / sides[:, :1].ceil(), _at(y, rows) / sides[:, 1:].ceil()], dim=2)
    places = found * sides[:, None] + boxes[:, None, :2]
    return torch.cat([places, torch.ones_like(places[..., :1])], dim=2), logits


def _at(values: Tensor, places: Tensor) -> Tensor:
    """(R, K, P) at places (R, K)."""
    return values.gather(2, places[..., None])[..., 0]


def _window(cell: Tensor, side: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """The pixels that are looked at along one side of each box.

    Args:
        cell: (R, K), the highest.
        side: (R, 1) of the box, in pixels.
        cells: of the heatmap along this side.

    Returns:
        Middles of P pixels (R, K, P), counted from the box's edge; and (R, K, P, cells + 2 · BEYOND), what each shows
        of every cell.
    """
    pixels = side.ceil()
    middle = ((cell + 0.5) * pixels / cells).floor()
    first = torch.minimum(middle - REACH, pixels - 2 * REACH - 1).clamp(min=0)
    steps = torch.arange(2 * REACH + 1, device=cell.device)
    x = torch.minimum(first[..., None] + steps, pixels[..., None] - 1) + 0.5
    place = x * (cells / pixels[..., None]) - 0.5
    number = torch.arange(-BEYOND, cells + BEYOND, device=cell.device)
    return x, _cubic((place[..., None] - number).abs())


def _cubic(apart: Tensor) -> Tensor:
    """The weight of a cell by its distance, in cells (Keys, 1981)."""
    a = SHARPNESS
    near = ((a + 2) * apart - (a + 3)) * apart * apart + 1
    far = ((a * apart - 5 * a) * apart + 8 * a) * apart - 4 * a
    return torch.where(apart <= 1, near, torch.where(apart < 2, far, 0.0))
