"""The aligned feature pyramid: a view reduced k times answers with levels shifted by log2 k (MSAD, section 3.1)."""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

from msad_cli.models.backbones import Body
from msad_cli.models.normalisation import select_view
from msad_cli.structures.frame import level_shift

FINEST, COARSEST = 3, 7
"""Levels of the HR view of a dense detector: P3–P7."""


class FinerLevel(nn.Module):
    """The lateral and output convolutions of one level below the stock pyramid, initialised as its own are."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(inputs, channels, kernel_size=1)
        self.layer = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        for conv in (self.inner, self.layer):
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]


class AlignedBackbone(nn.Module):
    """A body and the pyramid above it.

    `body` and `fpn` carry the names of torchvision's stock FCOS, whose weights load into them; `finer` holds what the
    reduced views need in addition. P6 is made from P5, as in torchvision (the official MSAD code takes C5).

    Args:
        body: the feature extractor.
        channels: channels of every level.
        largest_k: the most reduced view this pyramid has to serve.
    """

    def __init__(self, body: Body, channels: int, largest_k: int) -> None:
        super().__init__()
        self.out_channels = channels
        self.body = body
        stock = [body.channels[level] for level in (3, 4, 5)]
        self.fpn = FeaturePyramidNetwork(stock, channels, extra_blocks=LastLevelP6P7(channels, channels))
        finer = range(FINEST - 1, FINEST - 1 - level_shift(largest_k), -1)
        self.finer = nn.ModuleDict({str(level): FinerLevel(body.channels[level], channels) for level in finer})

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Torchvision's contract for a backbone: the HR view's levels by name."""
        levels = range(FINEST, COARSEST + 1)
        return OrderedDict(zip(map(str, levels), self.pyramid(images, 1), strict=True))

    def pyramid(self, images: Tensor, k: int) -> list[Tensor]:
        """Pyramid of a view.

        Args:
            images: (N, 3, H/k, W/k), the normalised and padded view, H and W being multiples of 128 HR pixels.
            k: how many times the view is reduced.

        Returns:
            Five maps (N, channels, H/s, W/s) for s = 8, 16, 32, 64, 128 HR pixels, whatever k is.
        """
        shift = level_shift(k)
        select_view(self.body, k)
        maps = self.body(images)
        merged = self.fpn.inner_blocks[-1](maps[5])
        levels = [self.fpn.layer_blocks[-1](merged)]
        for level in range(4, FINEST - 1 - shift, -1):
            inner, layer = self._convolutions(level)
            lateral = inner(maps[level])
            merged = lateral + F.interpolate(merged, size=lateral.shape[-2:], mode="nearest")
            levels.insert(0, layer(merged))
        extra = self.fpn.extra_blocks
        if COARSEST - shift >= 6:
            levels.append(extra.p6(levels[-1]))
        if COARSEST - shift >= 7:
            levels.append(extra.p7(F.relu(levels[-1])))
        return levels

    def _convolutions(self, level: int) -> tuple[nn.Module, nn.Module]:
        if level >= FINEST:
            return self.fpn.inner_blocks[level - FINEST], self.fpn.layer_blocks[level - FINEST]
        finer = self.finer[str(level)]
        return finer.inner, finer.layer  # type: ignore[return-value]
