"""Haar's wavelets: a map as its blurred quarter and the differences of neighbours, at several scales."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def haar(maps: Tensor, scales: int) -> tuple[Tensor, list[Tensor]]:
    """The orthonormal transform: the sum of all squares stays the same.

    Args:
        maps: (N, C, h, w); zeros are added below and on the right, up to multiples of 2^scales.

    Returns:
        The low band (N, C, h/2^scales, w/2^scales), and of each scale, finest first, the high bands
        (N, C, 3, h/2^i, w/2^i): differences across columns, across rows, across both.
    """
    height, width = maps.shape[-2:]
    low, highs = F.pad(maps, (0, -width % 2**scales, 0, -height % 2**scales)), []
    for _ in range(scales):
        a, b, c, d = (low[..., row::2, column::2] for row in (0, 1) for column in (0, 1))
        highs.append(torch.stack([a - b + c - d, a + b - c - d, a - b - c + d], dim=2) / 2)
        low = (a + b + c + d) / 2
    return low, highs


def inverse_haar(low: Tensor, highs: Sequence[Tensor]) -> Tensor:
    """What `haar` made the bands of, (N, C, h, w), the added zeros included."""
    for high in reversed(highs):
        columns, rows, both = high.unbind(dim=2)
        a, b = low + columns + rows + both, low - columns + rows - both
        c, d = low + columns - rows - both, low - columns - rows + both
        upper, lower = (torch.stack(pair, dim=-1).flatten(-2) for pair in ((a, b), (c, d)))
        low = torch.stack([upper, lower], dim=-2).flatten(-3, -2) / 2
    return low
