"""Haar's wavelets: a map as its blurred quarter and the differences of neighbours, at several scales."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def haar(maps: Tensor, scales: int) -> tuple[Tensor, list[Tensor]]:
    """The orthonormal transform: the sum of all squares stays the same.

    Where a scale begins with an odd side, a row or column of zeros is added to it below or on the right. All that
    would be needed at once would be more than the map itself where that is small.

    Args:
        maps: (N, C, h, w).

    Returns:
        The low band (N, C, ⌈h/2^scales⌉, ⌈w/2^scales⌉), and of each scale i, finest first, the high bands
        (N, C, 3, ⌈h/2^i⌉, ⌈w/2^i⌉): differences across columns, across rows, across both.
    """
    low, highs = maps, []
    for _ in range(scales):
        low = F.pad(low, (0, low.shape[-1] % 2, 0, low.shape[-2] % 2))
        a, b, c, d = (low[..., row::2, column::2] for row in (0, 1) for column in (0, 1))
        highs.append(torch.stack([a - b + c - d, a + b - c - d, a - b - c + d], dim=2) / 2)
        low = (a + b + c + d) / 2
    return low, highs


def inverse_haar(low: Tensor, highs: Sequence[Tensor]) -> Tensor:
    """What `haar` made the bands of, (N, C, h, w), with the zeros that the first scale added."""
    for high in reversed(highs):
        # Without the zeros that were added for the scale before this one.
        low = low[..., : high.shape[-2], : high.shape[-1]]
        columns, rows, both = high.unbind(dim=2)
        a, b = low + columns + rows + both, low - columns + rows - both
        c, d = low + columns - rows - both, low - columns - rows + both
        upper, lower = (torch.stack(pair, dim=-1).flatten(-2) for pair in ((a, b), (c, d)))
        low = torch.stack([upper, lower], dim=-2).flatten(-3, -2) / 2
    return low
