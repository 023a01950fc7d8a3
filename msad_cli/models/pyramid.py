"""The aligned feature pyramid: a view downsampled by k has levels shifted by log2 k (MSAD, section 3.1)."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import (
    ExtraFPNBlock,
    FeaturePyramidNetwork,
    LastLevelMaxPool,
    LastLevelP6P7,
)

from msad_cli.frame import level_shift
from msad_cli.models.backbones.normalisation import select_view
from msad_cli.models.backbones.resnet import Backbone

LEVELS = 5
"""How many maps an FPN gives: P3–P7 of the HR view for torchvision's dense detectors, P2–P6 for those of two stages."""


def subsampled_top(finest: int) -> bool:
    """Whether the coarsest of five levels from P_finest on is every second cell of the one before: P6 of P2–P6.

    Those of P3–P7 have a convolution each.

    Raises:
        KeyError: a pyramid begins with P2 or P3.
    """
    return {2: True, 3: False}[finest]


class FinerLevel(nn.Module):
    """The lateral and output convolutions of one level below the stock pyramid, initialised as its own are."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(inputs, channels, kernel_size=1)
        self.layer = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        for conv in (self.inner, self.layer):
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]


class AlignedBackbone(nn.Module, ABC):
    """A backbone and the pyramid above it, whose levels shift with the view.

    Attributes:
        body: the backbone.
        fpn: what the stock detector has above its backbone, with the names of published weights.
        finer: what the smaller views need in addition, by level.
        out_channels: channels of every level.
    """

    fpn: nn.Module
    finer: nn.ModuleDict

    def __init__(self, body: Backbone, channels: int) -> None:
        super().__init__()
        self.body = body
        self.out_channels = channels

    def pyramid(self, images: Tensor, k: int) -> list[Tensor]:
        """Pyramid of a view.

        Args:
            images: (N, 3, H/k, W/k), the normalised and padded view, H and W being multiples of 128 HR pixels.
            k: by how much the view is downsampled.

        Returns:
            Maps (N, channels, H/s, W/s), as many whatever k is; s, in HR pixels, doubles from level to level and begins
            with 8 for dense detectors, with 4 for those of two stages.
        """
        return list(self(images, k).values())

    @abstractmethod
    def forward(self, images: Tensor, k: int = 1) -> OrderedDict[str, Tensor]:
        """Torchvision's contract for a backbone: the levels of `pyramid` by name, "0" being the finest."""

    @abstractmethod
    def outputs_below(self, count: int) -> list[nn.Module]:
        """What alone makes the `count` finest levels of the HR view, so that nothing reaches it where they are left
        out."""


class FPNBackbone(AlignedBackbone):
    """A feature pyramid network over a backbone.

    `body` and `fpn` carry the names of torchvision's stock detectors, whose weights load into them; `finer` holds what
    the smaller views need in addition. P6 is made from P5, as in torchvision: by a convolution where P7 follows it (the
    official MSAD code takes C5), else by leaving out every second cell.

    Args:
        backbone: the feature extractor.
        channels: channels of every level.
        finest: l of the finest level P_l of the HR view, 3 for dense detectors and 2 for those of two stages.
        ks: the reductions of the views that this pyramid has to serve. What none of them reaches is frozen.
    """

    fpn: FeaturePyramidNetwork

    def __init__(self, backbone: Backbone, channels: int, finest: int, ks: Sequence[int]) -> None:
        super().__init__(backbone, channels)
        self.finest = finest
        stock = [backbone.channels[level] for level in range(finest, 6)]
        extra: ExtraFPNBlock = LastLevelMaxPool() if subsampled_top(finest) else LastLevelP6P7(channels, channels)
        self.fpn = FeaturePyramidNetwork(stock, channels, extra_blocks=extra)
        below = range(finest - 1, finest - 1 - level_shift(max(ks)), -1)
        self.finer = nn.ModuleDict({str(level): FinerLevel(backbone.channels[level], channels) for level in below})
        coarsest = finest + LEVELS - 1 - level_shift(min(ks))
        for level, conv in {6: "p6", 7: "p7"}.items():
            if level > coarsest and hasattr(extra, conv):
                # A parameter without a gradient would stall distributed training.
                extra.get_submodule(conv).requires_grad_(False)

    def forward(self, images: Tensor, k: int = 1) -> OrderedDict[str, Tensor]:
        """Torchvision's contract for a backbone: the levels of `pyramid` by name, "0" being the finest."""
        finest = self.finest - level_shift(k)
        select_view(self.body, k)
        maps = self.body(images)
        merged = self.fpn.inner_blocks[-1](maps[5])
        levels = [self.fpn.layer_blocks[-1](merged)]
        for level in range(4, finest - 1, -1):
            inner, layer = self._convolutions(level)
            lateral = inner(maps[level])
            merged = lateral + F.interpolate(merged, size=lateral.shape[-2:], mode="nearest")
            levels.insert(0, layer(merged))
        extra = self.fpn.extra_blocks
        if len(levels) < LEVELS and isinstance(extra, LastLevelMaxPool):
            levels.append(F.max_pool2d(levels[-1], kernel_size=1, stride=2))
        if len(levels) < LEVELS:
            levels.append(extra.p6(levels[-1]))
        if len(levels) < LEVELS:
            levels.append(extra.p7(F.relu(levels[-1])))
        return OrderedDict((str(i), each) for i, each in enumerate(levels))

    def outputs_below(self, count: int) -> list[nn.Module]:
        """The lateral and output convolutions of these levels: no coarser one is made from a finer one."""
        return [*self.fpn.inner_blocks[:count], *self.fpn.layer_blocks[:count]]

    def _convolutions(self, level: int) -> tuple[nn.Module, nn.Module]:
        if level >= self.finest:
            return self.fpn.inner_blocks[level - self.finest], self.fpn.layer_blocks[level - self.finest]
        finer = self.finer[str(level)]
        return finer.inner, finer.layer  # type: ignore[return-value]
