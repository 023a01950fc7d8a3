"""Crossing feature-level fusion, C-FF (MSAD, section 3.2): aligned pyramids of several views become one."""

from functools import reduce

import torch
from torch import Tensor, nn

REDUCTION = 16
"""r of the official code; the paper leaves it open."""


class CrossFusion(nn.Module):
    """Weighs aligned maps against each other, image by image and level by level, with one module for all levels.

    z = GAP([A; B]) -> FC -> ReLU -> FC -> softmax -> (w0, w1), fused = w0·A + w1·B. Both FCs are free of bias.

    Args:
        channels: channels of a map.
        views: how many views are fused; the paper has 2.
    """

    def __init__(self, channels: int, views: int = 2) -> None:
        super().__init__()
        hidden = channels * views // REDUCTION
        self.squeeze = nn.Linear(channels * views, hidden, bias=False)
        self.weigh = nn.Linear(hidden, views, bias=False)
        for layer in (self.squeeze, self.weigh):
            nn.init.kaiming_uniform_(layer.weight, a=1)

    def weights(self, maps: list[Tensor]) -> Tensor:
        """Weights (N, views), summing to 1 a row, for one level's maps of (N, C, h, w) each."""
        pooled = torch.cat([each.mean(dim=(2, 3)) for each in maps], dim=1)
        return torch.softmax(self.weigh(torch.relu(self.squeeze(pooled))).float(), dim=1)

    def forward(self, pyramids: list[list[Tensor]]) -> list[Tensor]:
        """One pyramid a view, finest level first, shapes equal level by level -> the fused pyramid of those shapes."""
        fused = []
        for maps in zip(*pyramids, strict=True):
            weights = self.weights(list(maps)).to(maps[0].dtype)
            fused.append(reduce(torch.add, (weights[:, i, None, None, None] * each for i, each in enumerate(maps))))
        return fused


def build_fusion(kind: str, channels: int, views: int) -> nn.Module:
    """The fusion of this name.

    Raises:
        ValueError: there is no such fusion.
    """
    if kind != "c-ff":
        raise ValueError(f"fusion {kind!r}: not there yet")
    return CrossFusion(channels, views)
