"""The blocks of CSPNeXt and of RTMDet's neck (Lyu et al., arXiv 2212.07784), with OpenMMLab's names."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

Norm = Callable[[int], nn.Module]
"""From channels to a normalisation layer."""

EPSILON, MOMENTUM = 1e-3, 0.03
"""Of the published batch normalisation: what is added to a variance, and the weight of a new batch."""
POOLED = (5, 9, 13)
"""Sides of the windows that `SPP` pools."""


class ConvNorm(nn.Module):
    """Convolution, normalisation, SiLU: (N, inputs, h, w) -> (N, outputs, h / stride, w / stride)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, norm: Norm, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        return F.silu(self.bn(self.conv(x)))


class Separable(nn.Module):
    """A depthwise `ConvNorm` and a 1×1 one behind it, of equal channels and size."""

    def __init__(self, channels: int, kernel: int, norm: Norm) -> None:
        super().__init__()
        self.depthwise_conv = ConvNorm(channels, channels, kernel, norm, groups=channels)
        self.pointwise_conv = ConvNorm(channels, channels, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) -> the same shape."""
        found: Tensor = self.pointwise_conv(self.depthwise_conv(x))
        return found


class LargeKernelBlock(nn.Module):
    """3×3, then 5×5 depthwise separable, and perhaps the input added: (N, channels, h, w) -> the same shape."""

    def __init__(self, channels: int, norm: Norm, identity: bool) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels, 3, norm)
        self.conv2 = Separable(channels, 5, norm)
        self.identity = identity

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        found: Tensor = self.conv2(self.conv1(x))
        return found + x if self.identity else found


class ChannelAttention(nn.Module):
    """Weighs channels by what the whole image has of them: x · hardsigmoid(fc(mean of x))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) -> the same shape."""
        return x * F.hardsigmoid(self.fc(x.mean(dim=(2, 3), keepdim=True)))


class CSPLayer(nn.Module):
    """Half of the channels go through blocks, half beside them: (N, inputs, h, w) -> (N, outputs, h, w).

    Args:
        blocks: how many.
        identity: whether each block adds its input.
        attention: whether the channels of both halves are weighed before the last convolution.
    """

    def __init__(
        self, inputs: int, outputs: int, blocks: int, norm: Norm, identity: bool = False, attention: bool = False
    ) -> None:
        super().__init__()
        half = outputs // 2
        self.main_conv = ConvNorm(inputs, half, 1, norm)
        self.short_conv = ConvNorm(inputs, half, 1, norm)
        self.final_conv = ConvNorm(2 * half, outputs, 1, norm)
        self.blocks = nn.Sequential(*(LargeKernelBlock(half, norm, identity) for _ in range(blocks)))
        self.attention = ChannelAttention(2 * half) if attention else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        both = torch.cat([self.blocks(self.main_conv(x)), self.short_conv(x)], dim=1)
        found: Tensor = self.final_conv(self.attention(both))
        return found


class SPP(nn.Module):
    """Spatial pyramid pooling: the highest value of windows of several sizes around each cell, beside the map itself.

    (N, channels, h, w) -> the same shape.
    """

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = ConvNorm(channels, half, 1, norm)
        self.conv2 = ConvNorm((1 + len(POOLED)) * half, channels, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        reduced = self.conv1(x)
        pooled = [F.max_pool2d(reduced, side, stride=1, padding=side // 2) for side in POOLED]
        found: Tensor = self.conv2(torch.cat([reduced, *pooled], dim=1))
        return found


def as_published(modules: Sequence[nn.Module]) -> None:
    """Gives the batch normalisations within modules, frozen ones too, RTMDet's ε and momentum."""
    for module in modules:
        for each in module.modules():
            if isinstance(each, nn.BatchNorm2d):
                each.eps, each.momentum = EPSILON, MOMENTUM
            if isinstance(each, FrozenBatchNorm2d):
                each.eps = EPSILON
