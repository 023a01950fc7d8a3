"""Fusions by convolution, rivals of C-FF (MSAD, ablation of section 3.2): SC-SUM and CC.

The paper names no kernel; here it is 3×3, as that of the pyramid's outputs, without bias and activation, and shared by
all levels. Both start as the mean of the views: a head that was trained reads that at once, where random kernels would
hand it noise. Read so, the two are one function with one start: the convolution of stacked maps is the sum of
convolutions. They differ in how the parameters lie, and in rounding; the paper's figures for them (40.3 and 41.4 AP)
must come from details that it does not give.
"""

from functools import reduce

import torch
from torch import Tensor, nn


class SumFusion(nn.Module):
    """SC-SUM: the sum of one convolution a view.

    Args:
        channels: channels of a map.
        views: how many views are fused.
    """

    def __init__(self, channels: int, views: int = 2) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_convolution(channels, channels) for _ in range(views))
        for weight in self.convs.parameters():
            _start_as_mean(weight, views)

    def forward(self, pyramids: list[list[Tensor]]) -> list[Tensor]:
        """One pyramid a view, finest level first, shapes equal level by level -> the fused pyramid of those shapes."""
        fused = []
        for maps in zip(*pyramids, strict=True):
            fused.append(reduce(torch.add, (conv(each) for conv, each in zip(self.convs, maps, strict=True))))
        return fused


class ConcatFusion(nn.Module):
    """CC: one convolution over the views' stacked channels.

    Args:
        channels: channels of a map.
        views: how many views are fused.
    """

    def __init__(self, channels: int, views: int = 2) -> None:
        super().__init__()
        self.conv = _convolution(channels * views, channels)
        _start_as_mean(self.conv.weight, views)

    def forward(self, pyramids: list[list[Tensor]]) -> list[Tensor]:
        """One pyramid a view, finest level first, shapes equal level by level -> the fused pyramid of those shapes."""
        return [self.conv(torch.cat(maps, dim=1)) for maps in zip(*pyramids, strict=True)]


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)


@torch.no_grad()
def _start_as_mean(weight: Tensor, views: int) -> None:
    """Fills a weight (C, C or views · C, 3, 3) with the identity on each block of C inputs, divided by `views`."""
    for block in weight.split(weight.shape[0], dim=1):
        nn.init.dirac_(block).div_(views)
